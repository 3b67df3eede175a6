"""Known jobs once more, from nothing: does the same command give the same numbers?"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.claims.parts import StoppedError
from benchmarks.claims.run import Task, add, job, key, machine, read, same
from gmml_models.errors import UsageError

MEASURES = ("top1", "top5", "knn", "linear", "loss")


def repeat(task: Task) -> bool:
    """Do jobs that are known a second time, in ``runs/again``, and note beside their numbers what came out.

    The note is ``again``: the numbers, the machine, and ``same``, which is True where every number is equal to the last digit.
    Jobs that are not known are passed over.

    Returns:
        True if all were done, False if it was stopped and goes on.

    Raises:
        UsageError: none of them is known, or as `benchmarks.claims.run.run`.
    """
    known = read(task.results)
    chosen = [(row, seed) for row, seed in task.jobs if same(row, known.get(key(row, seed)))]
    if not chosen:
        raise UsageError("claims: none of these rows has been measured with its present settings. Leave --again out first.")
    aside = replace(task.place, runs=task.place.runs / "again", waits=True)
    for row, seed in chosen:
        name = key(row, seed)
        try:
            found = job(row, seed, aside)
        except StoppedError:
            task.tell(f"{name}: stopped; the same command goes on")
            return False
        first = read(task.results)[name]
        numbers = {measure: found[measure] for measure in MEASURES}
        equal = all(first[measure] == number for measure, number in numbers.items())
        add(task.results, {name: {**first, "again": {**numbers, "same": equal, "machine": machine()}}})
        task.after()
        task.tell(f"{name}: {first['top1']:.2f} % then, {found['top1']:.2f} % now; {'the same' if equal else 'NOT the same'}")
    return True
