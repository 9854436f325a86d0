from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from talkhead import __version__
from talkhead.app import checks
from talkhead.app import fit as fit_module
from talkhead.app.choices import MODES, PRESETS
from talkhead.app.cli import evaluate as cli_evaluate
from talkhead.app.cli import fit as cli_fit
from talkhead.app.cli import main as cli
from talkhead.app.cli import speak as cli_speak
from talkhead.app.evaluation.options import EvaluateOptions
from talkhead.app.evaluation.results import Report
from talkhead.app.fit import fit as fit_of_this_version
from talkhead.app.options import FitOptions
from talkhead.app.request import OutputOptions, SpeakSettings, declared_options
from talkhead.errors import FootageError, TalkheadError
from talkhead.identity import IdentityPackage
from talkhead.media.codecs import CODECS
from talkhead.progress import BarProgress, JsonProgress, Progress, SilentProgress


@dataclass(frozen=True)
class Result:
    """The result of a fake fit or speak."""

    output_path: Path = Path("line.mp4")
    figures: dict[str, Any] = field(default_factory=lambda: {"psnr_db": 33.123456, "note": None})
    n_frames: int = 250


class Stage:
    """A function that records its call, and can raise."""

    def __init__(self) -> None:
        self.given: tuple[Any, ...] = ()
        self.named: dict[str, Any] = {}
        self.error: BaseException | None = None
        self.result: Any = Result()

    def __call__(self, *given: Any, **named: Any) -> Any:
        self.given, self.named = given, named
        if self.error is not None:
            raise self.error
        return self.result


def install(name: str, monkeypatch: pytest.MonkeyPatch) -> Stage:
    stage, module = Stage(), ModuleType(f"talkhead.app.{name}")
    setattr(module, "speak_checked" if name == "speak" else name, stage)
    monkeypatch.setattr(
        checks, f"check_{name}", lambda *given, **named: given[-1] if given else None
    )
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return stage


@pytest.fixture
def fit(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return install("fit", monkeypatch)


@pytest.fixture
def speak(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return install("speak", monkeypatch)


@pytest.fixture(autouse=True)
def _keep_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "signal", lambda signum, handler: None)


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The exit status of the command line."""
    monkeypatch.setattr(sys, "argv", ["talkhead", *words])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    code = caught.value.code
    assert isinstance(code, int)
    return code


def test_fit_passes_everything_on(fit: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "--video a.mp4 --video b.mp4 --name anna --preset high --renderer warp --encoder mel"
    more = "--home h --seed 3 --use-all-frames --min-face 0.1 --no-wait --no-speech-check --quiet"
    given = [*words.split(), "--device", "cpu", *more.split(), "--consent", "Yes."]
    assert run(monkeypatch, "fit", *given) == 0
    assert fit.given == ([Path("a.mp4"), Path("b.mp4")],)
    assert isinstance(fit.named.pop("progress"), SilentProgress)
    assert fit.named == {
        "name": "anna",
        "device": "cpu",
        "home": Path("h"),
        "options": FitOptions(
            preset="high",
            renderer="warp",
            encoder="mel",
            seed=3,
            consent="Yes.",
            use_all_frames=True,
            min_face=0.1,
            check_speech=False,
            wait=False,
        ),
    }
    assert type(fit.named["options"].preset) is str


@pytest.mark.parametrize("seed", ["-1", str(2**32), "9" * 40])
def test_seeds_that_no_generator_accepts_are_refused(
    fit: Stage, monkeypatch: pytest.MonkeyPatch, seed: str
) -> None:
    assert run(monkeypatch, "fit", "--video", "a.mp4", f"--seed={seed}") == 2 and not fit.named
    with pytest.raises(TalkheadError, match=f"a seed of {seed} is not allowed. Choose 0 to"):
        fit_of_this_version("a.mp4", seed=int(seed))


def test_the_defaults_of_fit_are_those_of_the_api(
    fit: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(monkeypatch, "fit", "--video", "a.mp4") == 0
    assert isinstance(fit.named["progress"], BarProgress)
    assert fit.named["name"] is None
    assert fit.named["options"] == FitOptions()


def test_speak_passes_everything_on(speak: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "--audio a.wav --identity anna -o out.mp4 --mode head --renderer warp --home h --json"
    assert run(monkeypatch, "speak", *words.split()) == 0
    assert speak.given == (Path("a.wav"), Path("out.mp4"))
    assert isinstance(speak.named.pop("progress"), JsonProgress)
    assert speak.named == {
        "identity": "anna",
        "mode": "head",
        "settings": SpeakSettings(OutputOptions(), "warp"),
        "home": Path("h"),
    }


def test_speak_is_checked_once(speak: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def check(audio: Path, output: Path | None, **named: Any) -> checks.SpeakFiles:
        calls.append((audio, output, named["mode"], named["video"]))
        return checks.SpeakFiles(Path("a.mp4"))

    monkeypatch.setattr(checks, "check_speak", check)
    assert run(monkeypatch, "speak", "--audio", "a.wav", "--video", "b.mp4") == 0
    assert calls == [(Path("a.wav"), None, "paste", Path("b.mp4"))]
    assert speak.given == (Path("a.wav"), checks.SpeakFiles(Path("a.mp4")))


def test_every_codec_is_in_the_help_and_in_the_documentation() -> None:
    rows = (Path(__file__).parents[3] / "docs" / "output.md").read_text("utf-8").splitlines()
    listed = {row.split("`")[1] for row in rows if row.startswith("| `")}
    described = declared_options()["codec"].help
    for name in CODECS:
        assert name in listed and re.search(rf"\b{name} \(", described), name


def test_choices_are_those_of_the_python_api() -> None:
    assert [one.value for one in cli_speak.Mode] == list(MODES)
    assert [one.value for one in cli_fit.Preset] == list(PRESETS)


def test_options_of_the_output(speak: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "--audio a.wav --codec vp9 --height 360 --background #00ff00 --subtitles burn"
    more = "--transcript line.txt --language de --loudness -16 --certificate c.pem --key k.pem"
    head = "--yaw -5 --pitch 3 --zoom 1.2 --intensity 0.8 --timeline source"
    assert run(monkeypatch, "speak", *words.split(), *more.split(), *head.split()) == 0
    assert speak.named["settings"].options == OutputOptions(
        codec="vp9",
        timeline="source",
        height=360,
        background="#00ff00",
        yaw=-5.0,
        pitch=3.0,
        zoom=1.2,
        intensity=0.8,
        subtitles="burn",
        transcript="line.txt",
        language="de",
        loudness=-16.0,
        certificate=Path("c.pem"),
        key=Path("k.pem"),
    )
    assert run(monkeypatch, "speak", "--audio", "a.wav", "--no-provenance") == 0
    assert not speak.named["settings"].options.provenance
    assert run(monkeypatch, "speak", "--audio", "a.wav", "--subtitles", "above") == 2
    assert run(monkeypatch, "speak", "--audio", "a.wav", "--loudness", "3") == 1


@pytest.mark.parametrize(
    ("words", "terminal", "consent"),
    [
        ([], True, "Anna, on paper"),
        (["--yes"], True, None),
        (["--consent", "Berta"], True, "Berta"),
        ([], False, None),
    ],
)
def test_only_an_interactive_fit_asks_for_consent(
    fit: Stage,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    terminal: bool,
    consent: str | None,
) -> None:
    asked: list[str] = []

    def answer(question: str, **options: object) -> str:
        asked.append(question)
        return " Anna, on paper "

    monkeypatch.setattr(cli.typer, "prompt", answer)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: terminal, raising=False)
    assert run(monkeypatch, "fit", "--video", "a.mp4", *words) == 0
    assert fit.named["options"].consent == consent
    assert len(asked) == (consent == "Anna, on paper")


NOTHING_FOUND = Report("anna", {}, (), (), None, (), (), ("few frames",), ())


@dataclass(frozen=True)
class IdentityEvaluation:
    """The result of a fake evaluation."""

    report_path: Path = Path("report.html")
    report: Report = NOTHING_FOUND


class Evaluation(ModuleType):
    """A fake talkhead.app.evaluate."""

    EvaluateOptions = EvaluateOptions

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.called: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def evaluate(self, *given: Any, **named: Any) -> IdentityEvaluation:
        self.called.append(("evaluate", given, named))
        return IdentityEvaluation()

    def evaluate_pair(self, *given: Any, **named: Any) -> IdentityEvaluation:
        self.called.append(("pair", given, named))
        return IdentityEvaluation()


@pytest.fixture
def evaluation(monkeypatch: pytest.MonkeyPatch) -> Evaluation:
    module = Evaluation("talkhead.app.evaluate")
    monkeypatch.setattr("talkhead.app.evaluate", module)
    for name in ("check_evaluate", "check_pair"):
        monkeypatch.setattr(checks, name, lambda *given, **named: None)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_evaluate_passes_everything_on(
    evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = tmp_path / "said.txt"
    text.write_text("What was said.")
    words = f"anna --audio a.wav --report out --video v.mp4 --text {text} --language fr"
    more = "--seconds 30 --renderer warp --folds 7 --device cpu --home h --quiet"
    assert run(monkeypatch, "evaluate", *words.split(), *more.split()) == 0
    ((name, given, named),) = evaluation.called
    assert (name, given) == ("evaluate", ("anna",))
    assert isinstance(named.pop("progress"), SilentProgress)
    assert named == {
        "audio": Path("a.wav"),
        "video": Path("v.mp4"),
        "report": Path("out"),
        "home": Path("h"),
        "options": EvaluateOptions("What was said.", "fr", 30.0, "warp", 7, "cpu"),
    }


def test_evaluate_compares_a_pair(
    evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "evaluate", "--pair", "a.mp4", "b.mp4", "--json") == 0
    assert evaluation.called[0][:2] == ("pair", (Path("a.mp4"), Path("b.mp4")))
    shown = json.loads(capsys.readouterr().out)
    assert shown["report_path"] == "report.html" and shown["warnings"] == ["few frames"]
    assert run(monkeypatch, "evaluate", "anna", "--pair", "a.mp4", "b.mp4") == 2
    assert "without NAME" in capsys.readouterr().err
    assert run(monkeypatch, "evaluate", "--folds", "5", "--pair", "a.mp4", "b.mp4") == 2
    assert "without NAME" in capsys.readouterr().err
    assert run(monkeypatch, "evaluate") == 0
    shown = capsys.readouterr().out
    assert "few frames" in shown and shown.rstrip().endswith("report: report.html")


def test_the_summary_replaces_the_figures(
    fit: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @dataclass(frozen=True)
    class Fitted:
        name: str = "anna"
        figures: dict[str, Any] = field(default_factory=lambda: {"psnr_db": 33.1})
        summary: str = "All is well."

    monkeypatch.setattr(fit, "result", Fitted())
    assert run(monkeypatch, "fit", "--video", "a.mp4") == 0
    assert capsys.readouterr().out == "name: anna\n\nAll is well.\n"
    assert run(monkeypatch, "fit", "--video", "a.mp4", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == {"name": "anna", "figures": {"psnr_db": 33.1}}


@pytest.mark.usefixtures("speak")
def test_results_go_to_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "speak", "--audio", "a.wav") == 0
    assert capsys.readouterr().out == (
        "output: line.mp4\nfigures:\n  psnr db: 33.12\nn frames: 250\n"
    )
    assert run(monkeypatch, "speak", "--audio", "a.wav", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "output_path": "line.mp4",
        "figures": {"psnr_db": 33.123456, "note": None},
        "n_frames": 250,
    }


def test_a_message_precedes_slow_imports(
    fit: Stage,
    speak: Stage,
    evaluation: Evaluation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The message is shown before any of the modules is imported."""
    seen: list[bool] = []

    @contextmanager
    def note(progress: Progress) -> Iterator[None]:
        seen.append(not (fit.given or speak.given or evaluation.called))
        yield

    for module, words in (
        (cli_fit, ["fit", "--video", "a.mp4"]),
        (cli_speak, ["speak", "--audio", "a.wav"]),
        (cli_evaluate, ["evaluate", "anna"]),
    ):
        monkeypatch.setattr(module, "loading", note)
        fit.given = speak.given = ()
        assert run(monkeypatch, *words) == 0
    assert seen == [True] * 3


def test_the_end_of_a_fit_names_the_next_command(
    fit: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit.error is None
    words = ("fit", "--video", "Anna B.mp4", "--home", "my people")
    assert run(monkeypatch, *words) == 0
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "",
        "Next: talkhead speak --audio LINE.wav --identity Anna-B --home 'my people'",
    ]
    assert run(monkeypatch, *words, "--quiet") == 0
    assert "Next" not in capsys.readouterr().err


def test_an_error_is_one_line(
    fit: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fit.error = FootageError("a.mp4: no face.\nRecord with the face in view.")
    assert run(monkeypatch, "fit", "--video", "a.mp4") == 1
    captured = capsys.readouterr()
    assert captured.err == "talkhead: a.mp4: no face. Record with the face in view.\n"
    assert captured.out == ""
    monkeypatch.setattr(sys, "argv", ["talkhead", "--debug", "fit", "--video", "a.mp4"])
    with pytest.raises(FootageError):
        cli.main()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "No space left on device", "/tmp/x"), "/tmp/x: the disk is full"),
        (MemoryError(), "not enough memory"),
        (
            ImportError("libGL.so.1: cannot open shared object file: No such file or directory"),
            "OpenCV needs a system library that is missing (libGL.so.1",
        ),
    ],
)
def test_missing_resources_are_reported_in_one_line(
    fit: Stage,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    words: str,
) -> None:
    fit.error = error
    assert run(monkeypatch, "fit", "--video", "a.mp4") == 1
    message = capsys.readouterr().err
    assert message.startswith(f"talkhead: {words}")
    assert message.count("\n") == 1


@pytest.mark.parametrize("error", [ImportError("no module x"), ZeroDivisionError(), OSError(5)])
def test_unexpected_errors_keep_their_traceback(
    fit: Stage, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    fit.error = error
    monkeypatch.setattr(sys, "argv", ["talkhead", "fit", "--video", "a.mp4"])
    with pytest.raises(type(error)):
        cli.main()


def test_an_interrupted_fit_says_that_it_resumes(
    fit: Stage,
    speak: Stage,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fit.error = speak.error = KeyboardInterrupt()
    assert run(monkeypatch, "fit", "--video", "a.mp4") == 130
    assert "Run the same command again to resume" in capsys.readouterr().err
    assert run(monkeypatch, "speak", "--audio", "a.wav") == 130
    assert capsys.readouterr().err == "talkhead: interrupted.\n"


@pytest.mark.usefixtures("fit")
@pytest.mark.parametrize(
    "words",
    [
        ["fit"],
        ["fit", "--video", "a.mp4", "--preset", "best"],
        ["fit", "--video", "a.mp4", "--min-face", "2"],
        ["fit", "--video", "a.mp4", "--colour", "red"],
        ["sing"],
        ["identities", "remove"],
    ],
)
def test_wrong_usage(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    assert run(monkeypatch, *words) == 2


def test_help_shows_an_example(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ([], ["fit"], ["speak"]):
        assert run(monkeypatch, *words, "--help") == 0
        text = capsys.readouterr().out
        assert "talkhead fit --video anna.mp4" in text or "talkhead speak --audio line.wav" in text
        assert not any(line.startswith(" talkhead ") for line in text.splitlines())  # indented
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"talkhead {__version__}\n"


def test_ffmpeg_is_passed_on(speak: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALKHEAD_FFMPEG", "")
    assert run(monkeypatch, "--ffmpeg", "my-ffmpeg", "speak", "--audio", "a.wav") == 0
    assert cli.os.environ["TALKHEAD_FFMPEG"] == "my-ffmpeg"
    assert speak.given


def test_identities_of_an_empty_home(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "identities", "list") == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "talkhead fit --video" in captured.err
    assert run(monkeypatch, "identities", "list", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []
    assert run(monkeypatch, "identities", "show", "anna") == 1
    assert "identity anna: not found" in capsys.readouterr().err
    assert run(monkeypatch, "identities", "export", "anna") == 1
    assert run(monkeypatch, "identities", "import", "anna.talkhead") == 1
    assert "anna.talkhead: there is no such file" in capsys.readouterr().err


def test_the_commands_for_identities(
    tmp_path: Path,
    add: Callable[[Path], IdentityPackage],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    add(tmp_path / "identities" / "anna")
    export, home = str(tmp_path / "anna.talkhead"), f"--home={tmp_path}"
    assert run(monkeypatch, "identities", "export", "anna", "-o", export, home) == 0
    assert capsys.readouterr().out == f"{export}\n"
    assert run(monkeypatch, "identities", "import", export, home) == 1
    assert "Pass --name OTHER, or --replace" in capsys.readouterr().err
    assert run(monkeypatch, "identities", "import", export, "--name", "berta", home) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'identities' / 'berta'}\n"
    assert run(monkeypatch, "identities", "list", home) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["anna", "0.0"], ["*", "berta"]]
    assert run(monkeypatch, "identities", "show", home, "--json") == 0
    assert json.loads(capsys.readouterr().out)["source"]["frame_rate"] == 29.97
    assert run(monkeypatch, "identities", "show", "anna", home) == 0
    assert "  warp:\n    file: warp.safetensors\n" in capsys.readouterr().out
    assert run(monkeypatch, "identities", "remove", "anna", "--yes", home) == 0
    assert not (tmp_path / "identities" / "anna").exists()


def test_importing_the_command_line_is_light() -> None:
    heavy = {"torch", "numpy", "scipy", "numba", "cv2", "mediapipe"}
    code = f"import sys, talkhead.app.cli.main; print({heavy!r} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("signalled", "status"), [(KeyboardInterrupt(), 130), (SystemExit(143), 143)]
)
def test_a_signal_inside_a_compiled_kernel(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    signalled: BaseException,
    status: int,
) -> None:
    """numba wraps the exception of a signal handler in a SystemError."""

    def interrupted(video: Path, **options: object) -> None:
        try:
            raise SystemError(
                "_numba_unpickle returned a result with an exception set"
            ) from signalled
        except SystemError as inner:
            raise SystemError("CPUDispatcher returned a result with an exception set") from inner

    monkeypatch.setattr(fit_module, "fit", interrupted)
    monkeypatch.setattr(checks, "check_fit", lambda *given, **named: None)
    monkeypatch.setattr(sys, "argv", ["talkhead", "fit", "--video", "a.mp4", "--quiet"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == status
    assert ("Run the same command again to resume" in capsys.readouterr().err) == (status == 130)
