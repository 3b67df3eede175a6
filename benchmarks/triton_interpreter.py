"""Triton's interpreter without what takes most of its time; what it computes stays the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any


def hurry() -> None:
    """For this process, which was started with TRITON_INTERPRET=1.

    Overflows of 32 bits are not looked for at each operation. And a function that a kernel calls does not replace the language by
    the interpreter's once more, member by member: the kernel that called it has done so. The functions of Triton itself know the
    language by another name, under which it is replaced once, and stays so.
    """
    from triton.language import core  # type: ignore[import-untyped, unused-ignore]
    from triton.runtime import interpreter  # type: ignore[import-untyped, unused-ignore]

    builder = interpreter.interpreter_builder
    builder.options = replace(builder.options, sanitize_overflow=False)
    replaced: list[bool] = []

    def called(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not replaced and core in self.fn.__globals__.values():
            interpreter._patch_lang(self.fn)
            replaced.append(True)
        return self.rewrite()(*args, **kwargs)

    interpreter.InterpretedFunction.__call__ = called
