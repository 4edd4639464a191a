"""The quantizers that are compared: which script runs each, in which environment, with which options."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

BENCH = Path(__file__).resolve().parent
SCRIPTS = BENCH / "peers"
ENVIRONMENTS = BENCH / ".envs"
REFEREE = "rtn"  # the environment the referee shares: torch and transformers only

# Our own row: the installed command line. Widths that no runtime reads are simulated in float.
BITWRIGHT = (
    ".venv/bin/bitwright quantize {model} --bits {bits} --group {group} --calib {calibration} "
    "--windows {windows} --length {length} -o {out} --threads 1 --json"
)
SIMULATE = " --simulate"
PACKED_BITS = (4,)


@dataclass(frozen=True)
class Peer:
    """One row of the comparison: the script bench/peers/<script>.py and its own options."""

    script: str
    options: tuple = ()

    def command(self, **settings):
        """Return the command line that quantizes, making the environment first if it is missing."""
        flags = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
        return [environment(self.script), str(SCRIPTS / f"{self.script}.py"), *flags, *self.options]


@dataclass(frozen=True)
class Bitwright(Peer):
    """Our own row, run as a user would run it: with another number of windows where the effort has its own."""

    script: str = ""
    windows: int | None = None

    def command(self, **settings):
        """Return our command line for these settings."""
        settings["windows"] = self.windows or settings["windows"]
        simulate = "" if settings["bits"] in PACKED_BITS else SIMULATE
        return [*(BITWRIGHT + simulate).format(**settings).split(), *self.options]


PEERS = {
    "bitwright": Bitwright(),
    "bitwright-fast": Bitwright(options=("--effort", "fast")),
    "bitwright-best": Bitwright(options=("--effort", "best"), windows=512),
    **{f"bitwright-{name}": Bitwright(options=("--method", name)) for name in ("adaround", "blockwise", "lsq")},
    "rtn": Peer("rtn"),
    "rtn-sym": Peer("rtn", ("--symmetric",)),
    "hqq": Peer("hqq_linear"),
    "llm-compressor": Peer("llm_compressor"),
    "llm-compressor-sym": Peer("llm_compressor", ("--symmetric",)),
    "gptqmodel": Peer("gptq_model"),
    "gptqmodel-sym": Peer("gptq_model", ("--symmetric",)),
    "autoround": Peer("autoround", ("--iterations", "200")),
    "autoround-sym": Peer("autoround", ("--iterations", "200", "--symmetric")),
}


def environment(script):
    """Return the Python of a script's virtual environment, made from <script>.txt unless it is up to date."""
    folder, wanted = ENVIRONMENTS / script, SCRIPTS / f"{script}.txt"
    python, stamp = folder / "bin" / "python", folder / "installed.txt"
    if not stamp.exists() or stamp.read_text() != wanted.read_text():
        print(f"making {folder.relative_to(BENCH.parent)}", file=sys.stderr)
        base = [line for line in wanted.read_text().split() if line.startswith(("torch==", "numpy=="))]
        pip = [str(python), "-m", "pip", "install", "--quiet"]
        for step in (
            [sys.executable, "-m", "venv", str(folder)],
            *([[*pip, *base]] if base else []),  # first and alone: some need torch to build, and none may replace it
            [*pip, "--no-build-isolation", "-c", str(wanted), "-r", str(wanted)],
        ):
            subprocess.run(step, check=True, stdout=sys.stderr)
        stamp.write_text(wanted.read_text())
    return str(python)
