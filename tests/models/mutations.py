"""Lines of `gmml_models` to break, one at a time, with the tests that should notice; ``python -m tests.mutations`` does it.

Where several tests would notice, the quickest is named. The recorded runs (`test_recorded.py`) are never: their hashes hold for one
processor and one release of torch, and say that something changed, not what.
"""

from __future__ import annotations

_ENGINE, _FEEDS, _STREAMS, _VIEWS, _SOURCES = (
    f"tests/models/test_{name}.py" for name in ("engine", "feeds", "streams", "views", "sources")
)
_TUNING, _FINETUNE, _PROBE, _EVALUATE = (f"tests/models/test_{name}.py" for name in ("tuning", "finetune", "probe", "evaluate"))
_SCHEDULES, _CHECKPOINT, _RECORD, _METRICS = (
    f"tests/models/test_{name}.py" for name in ("schedules", "checkpoint", "record", "metrics")
)
_OBJECTIVES, _TEACHERS, _LOSSES = (f"tests/models/test_{name}.py" for name in ("objectives", "teachers", "losses"))

LINES: list[tuple[str, str, str, str]] = [  # file, what stands there, what is put in its place, arguments of pytest
    # which images, in which order
    (
        "data/sampling.py",
        "start = step * self.batch_size + self.rank * mine",
        "start = step * self.batch_size",
        f"{_FEEDS} -k shared_out",
    ),
    (
        "data/sampling.py",
        "stream(make_keys(seed, epoch, torch.arange(images)), _ORDER)",
        "stream(make_keys(seed, 0, torch.arange(images)), _ORDER)",
        f"{_FEEDS} -k nothing_in_common",
    ),
    (
        "data/sampling.py",
        "return torch.arange(count) * images // max(count, 1)",
        "return torch.arange(count)",
        f"{_FEEDS} -k sample",
    ),
    ("data/sampling.py", "first if number == epoch else 0)", "0)", f"{_ENGINE} -k signal"),
    ("data/sampling.py", "first if number == epoch else 0)", "first)", f"{_ENGINE} -k signal"),
    ("data/loader.py", "make_keys(self.seed, fetched.epoch, index)", "make_keys(self.seed, 0, index)", f"{_FEEDS} -k epoch"),
    (
        "data/loader.py",
        "self.source.read(number) if self.strict else self.source[number]",
        "self.source[number]",
        f"{_FEEDS} -k order",
    ),
    ("data/loader.py", "with seeded(int(key)):", "with seeded(0):", f"{_FEEDS} -k transform"),
    (
        "data/resident_loader.py",
        "= pixels[healthy], aspects[healthy], labels[healthy]",
        "= pixels[healthy], aspects[number], labels[healthy]",
        f"{_FEEDS} -k broken",
    ),
    ("data/streams.py", "random.Random(seed).shuffle(urls)", "random.Random(0).shuffle(urls)", f"{_STREAMS} -k opened"),
    ("data/streams.py", "if len(waiting) > buffer:", "if len(waiting) > 9:", f"{_STREAMS} -k shuffling"),
    (
        "data/dataset.py",
        "held[: max(1, round(share * len(held)))]",
        "held[: max(1, int(share * len(held)))]",
        f"{_SOURCES} -k chosen",
    ),
    (
        "data/dataset.py",
        "make_keys(seed, 0, torch.arange(len(source))), _FEW",
        "make_keys(0, 0, torch.arange(len(source))), _FEW",
        f"{_SOURCES} -k seed",
    ),
    ("data/dataset.py", "return None if label is None else self._place[label]", "return label", f"{_SOURCES} -k numbered"),
    ("data/channel_stats.py", "dtype=torch.float64) / 255", "dtype=torch.float64) / 256", "tests/models/test_stats.py"),
    (
        "data/labels_csv.py",
        "float(rows[number][column].strip().lower() in _TRUE)",
        "float(rows[number][column].strip() in _TRUE)",
        f"{_SOURCES} -k csv",
    ),
    ("data/splits.py", 'TEST_SPLITS = ("test", "val",', 'TEST_SPLITS = ("val", "test",', f"{_SOURCES} -k split"),
    (
        "data/scan.py",
        "sorted(images, key=lambda path: (natural(str(path)), str(path)))",
        "sorted(images)",
        f"{_SOURCES} -k people_count",
    ),
    ("data/decode.py", "tensor.mul(255.0).round_()", "tensor.mul(255.0)", f"{_SOURCES} -k rounded"),
    # what happens to them
    ("data/transforms.py", "u[:, 4] < plan.flip", "u[:, 3] < plan.flip", f"{_VIEWS} -k draws"),
    ("data/transforms.py", "aspect = aspect * (height / width)  # what follows", "aspect = aspect * 1.0  # what follows", _VIEWS),
    ("data/transforms.py", "factors = (2.0 * u[:, 1:5] - 1.0) * change", "factors = u[:, 1:5] * change", f"{_VIEWS} -k looks"),
    ("data/transforms.py", "(high - low) * u[:, 7]", "(high - low) * u[:, 6]", f"{_VIEWS} -k looks"),
    ("data/transforms.py", "stream(keys, _VIEWS + view)", "stream(keys, _VIEWS)", f"{_VIEWS} -k draws"),
    ("data/transforms.py", "np.random.seed(seed % (1 << 32))", "np.random.seed(0)", f"{_VIEWS} -k generators"),
    ("data/augment.py", "cut.mul_(1 / 255).clamp_(0.0, 1.0)", "cut.mul_(1 / 255)", f"{_VIEWS} -k cut"),
    ("data/augment.py", "wide = step.clamp(min=1.0)[:, None]", "wide = torch.ones_like(step)[:, None]", f"{_VIEWS} -k antialiased"),
    (
        "data/augment.py",
        "images.sub_(self._mean).mul_(self._scale)",
        "images.mul_(self._scale).sub_(self._mean)",
        f"{_VIEWS} -k normalised",
    ),
    # the loop
    ("train/trainer.py", "(value / len(parts)).backward()", "value.backward()", f"{_ENGINE} -k parts"),
    (
        "train/trainer.py",
        'taken = max(state.sums.get("taken", 0.0), 1.0)',
        'taken = max(state.sums.get("taken", 0.0) + state.skipped, 1.0)',
        f"{_ENGINE} -k means_over",
    ),
    (
        "train/trainer.py",
        "learner.after_step(schedule.progress(state.step))",
        "learner.after_step(schedule.progress(state.step // 2))",
        f"{_ENGINE} -k learns",
    ),
    ("train/trainer.py", "lr=config.lr * config.batch_size / base_batch,", "lr=config.lr,", f"{_FINETUNE} -k learning_rate"),
    (
        "train/trainer.py",
        "warmup=round(config.warmup_epochs * per_epoch),",
        "warmup=round(config.warmup_epochs),",
        f"{_ENGINE} -k schedule",
    ),
    (
        "train/trainer.py",
        "_seed(config.seed, state.step, parallel.rank",
        "_seed(config.seed, 0, parallel.rank",
        f"{_FINETUNE} -k draw_of_its_own",
    ),
    ("train/trainer.py", "optimizer.zero_grad(set_to_none=True)", "pass", f"{_ENGINE} -k no_gradients"),
    ("train/optim.py", ".clamp(max=1.0) for norm in norms", " for norm in norms", _SCHEDULES),
    ("train/optim.py", 'parameter.ndim > 1 and name.rsplit(".", 1)[-1] not in _BARE', "parameter.ndim > 1", _SCHEDULES),
    ("train/checkpoint.py", "for old in whole[:-keep]:", "for old in whole[:-1]:", f"{_CHECKPOINT} -k newest"),
    ("train/checkpoint.py", "if found != wanted:", "if False:", f"{_CHECKPOINT} -k damage"),
    ("train/checkpoint.py", 'about["in_a_row"], about["sums"])', 'about["in_a_row"])', f"{_ENGINE} -k signal"),
    ("train/run_folder.py", 'if row["step"] <= step', 'if row["step"] < step', f"{_RECORD} -k rows"),
    ("schedule.py", "return self.lr * (step + 1) / warmup", "return self.lr * step / warmup", _SCHEDULES),
    # fine-tuning
    (
        "recipes/finetuning.py",
        "mixing(views, labels, torch.initial_seed())",
        "mixing(views, labels, 0)",
        f"{_FINETUNE} -k draw_of_its_own",
    ),
    ("recipes/finetune_augment.py", "with seeded(key):", "with seeded(0):", f"{_TUNING} -k Mixing"),
    ("recipes/finetuning.py", "tuning(views, average=True)", "tuning(views)", f"{_FINETUNE} -k average"),
    ("recipes/finetuned_weights.py", "tuning.best.save_pretrained", "tuning.classifier.save_pretrained", f"{_FINETUNE} -k average"),
    ("recipes/ema.py", "decay ** (last + 1 - min(layer, last))", "decay ** (last - min(layer, last))", f"{_TUNING} -k layers"),
    (
        "recipes/labelled_data.py",
        "few_shot(train, config.few_shot, config.seed)",
        "few_shot(train, config.few_shot, 0)",
        f"{_FINETUNE} -k chooses_the_few",
    ),
    # measuring
    ("recipes/evaluation.py", 'fixed = probe == "knn" and config.few_shot == 1', 'fixed = probe == "knn"', f"{_EVALUATE} -k seed"),
    ("evaluate/knn.py", "votes = votes - _first(wanted[which]) / (k * (k + 1))", "pass", f"{_PROBE} -k ties"),
    (
        "evaluate/linear_probe.py",
        "found = probe.decision_function(given)",
        'found = probe["scale"].fit(given) and probe.decision_function(given)',
        f"{_PROBE} -k judged",
    ),
    ("evaluate/linear_probe.py", "cv=[(fit, held)]", "cv=[(np.concatenate([fit, held]), held)]", f"{_PROBE} -k strength"),
    ("evaluate/metrics.py", "occur = there > 0", "occur = there >= 0", f"{_METRICS} -k occur"),
    # what is learnt
    (
        "objectives/gmml.py",
        "self._error(self.autoencoder(corrupted), clean, mask)",
        "self._error(self.autoencoder(corrupted), clean)",
        f"{_OBJECTIVES} -k gmml_is",
    ),
    ("objectives/objective.py", "keys=keys + number)", "keys=keys)", f"{_OBJECTIVES} -k gmml_is"),
    (
        "objectives/sit.py",
        "student_2, teacher_1, teacher_2, temperature",
        "student_2, teacher_2, teacher_1, temperature",
        f"{_TEACHERS} -k contrast",
    ),
    ("objectives/mc_ssl.py", "for one in seen if one != other]", "for one in seen]", f"{_TEACHERS} -k mean_of"),
    ("objectives/objective.py", "self.autoencoder.eval()\n        return self", "return self", f"{_TEACHERS} -k chance"),
    ("losses/distillation.py", "self.center), 1.0 - self.momentum)", "self.center), self.momentum)", f"{_LOSSES} -k centre"),
    (
        "models/pooling.py",
        "tokens[:, encoder.num_prefix_tokens :].mean(1)",
        "tokens[:, 1:].mean(1)",
        "tests/models/test_classifier.py -k pool",
    ),
]
