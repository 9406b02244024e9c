"""Kill `tinygrad-llm train` before each change that its last save makes to the folder, then resume what is left.

Usage: stop_save_anywhere.py FOLDER. The children are forked from this process, as in runs/train_until_killed.py.
Prints a JSON object: for each of three saves the number of kills, and the kills after which the model was lost.
"""

import contextlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.modules["matplotlib"] = None  # drawing takes long; the call that would draw counts as a change below

from tinygrad_llm.cli import main, watch  # noqa: E402
from tinygrad_llm.runs import run as run_module  # noqa: E402

CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree")
SETTINGS = "n_layer=1 n_head=1 n_embd=4 block_size=4 batch_size=2 warmup=1 eval_every=2 eval_batches=1 workers=1"
SETS = [word for setting in SETTINGS.split() for word in ("--set", setting)]

os.fsync = lambda file: None  # the process is killed here, not the machine
watch.SAMPLE_TOKENS = 4
os.chdir(sys.argv[1])
Path("text.txt").write_text("The cat sat on the mat, and the mat was flat.\n" * 4)
NEW = ["train", "--corpus", "text.txt", "--set", "tokenizer=char", *SETS, "--steps", "3"]


def command(arguments, kill_at=None):
    """The exit status of a child that is killed at this change since its save began; -9 if it was killed."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    left = [kill_at]
    save, draw = run_module.Run.save, run_module.save_pictures

    def change():
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1

    def watched(run):
        sys.addaudithook(
            lambda event, how: change() if event in CHANGES or (event == "open" and how[1] in ("w", "wb")) else None
        )
        return save(run)

    if kill_at is not None:
        run_module.Run.save = watched
        run_module.save_pictures = lambda *what: change() or draw(*what)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        status = 99  # a traceback
        with contextlib.suppress(Exception):
            status = main(arguments)
    os._exit(status)


def weights(place):
    path = Path(place, "model.safetensors")
    return path.read_bytes() if path.exists() else b""


def remove(*places):
    for place in places:
        shutil.rmtree(place, ignore_errors=True)


def try_kills(before, last):
    """Kill `last`, after `before`, at each change; resume; compare with the result of a run that is not killed."""
    remove("run", "before")
    for arguments in before:
        assert command(arguments) == 0, arguments
    if before:
        shutil.copytree("run", "before")
    assert command(last) == 0
    whole = weights("run")
    lost, kill_at = [], -1
    while True:
        kill_at += 1
        remove("run", "run-stopped")
        if before:
            shutil.copytree("before", "run")
        status = command(last, kill_at)
        if status != -signal.SIGKILL:
            assert status == 0
            return {"kills": kill_at, "lost": lost}
        places = [place for place in ("run", "run-stopped") if Path(place).exists()]
        resumed = [(place, command(["train", "--resume", place])) for place in places]
        if not any(status in (0, 2) and weights(place) == whole for place, status in resumed):
            lost.append(kill_at)
        if any(status not in (0, 2) for _, status in resumed):
            lost.append(f"{kill_at}: {resumed}")


new = [*NEW, "--out", "run"]
report = {
    "new": try_kills([], new),
    "extended": try_kills([new], ["train", "--resume", "run", "--steps", "2"]),
    "overwritten": try_kills([new], [*new, "--overwrite", "--seed", "9", "--set", "lr=0.1"]),
}
print(json.dumps(report))
