"""The command line as a user calls it."""

import sys
from pathlib import Path

import pytest


class Terminal:
    """The command line with what it prints."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        from splitleak.experiments.cli.app import main

        self.monkeypatch.setattr(sys, "argv", ["splitleak", *arguments])
        with pytest.raises(SystemExit) as exit_:
            main()
        printed = self.capsys.readouterr()
        assert isinstance(exit_.value.code, int)
        return exit_.value.code, printed.out, printed.err

    def refusal(self, *arguments: str) -> str:
        """The one line that it prints."""
        code, _, error = self(*arguments)
        assert "Traceback" not in error
        lines = error.splitlines()
        assert len(lines) == 1, error
        assert lines[0].startswith("error: ")
        assert lines[0].removeprefix("error: ").strip()
        assert code == 2
        return lines[0]

    def refused_plan(self, text: str) -> str:
        """The one line about this plan, which must not have begun to run."""
        Path("bad.toml").write_text(text)
        line = self.refusal("run", "bad.toml", "--out", "out")
        assert not Path("out").exists(), "it began to run"
        return line
