"""A run that replaces a report again and again, ended at random moments: `stopped.py FOLDER MOMENTS`.

Processes are forked from this one, since importing the package takes longer than all the rest.
"""

import itertools
import os
import random
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from icl_circuits.errors import InputError
from icl_circuits.report import new_folder
from icl_circuits.stopping import SIGNALS, obey_signals

FILES = ("a", "b/c", "b/d")


class Dropping:
    """Python drops what is raised while such a thing is removed."""

    def __del__(self) -> None:
        for _ in range(2000):
            pass


def replace_for_ever(out: Path, first: int) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which jobs in the background lack
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup takes away
    obey_signals()
    for number in itertools.count(first):
        with new_folder(out, "results", force=True) as folder:
            for name in FILES:
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_text(str(number))
                Dropping()
        if number == first:
            os.write(1, b"begun\n")


def end_once(out: Path, last: int, wait: float) -> int:
    """End a run that begins with the number after `last`; the number of the report that stands then.

    After kill -9 that is the report that the next run finds.
    """
    sent, (reader, writer) = random.choice([*SIGNALS, signal.SIGKILL]), os.pipe()
    child = os.fork()
    if not child:
        os.dup2(writer, 1)
        replace_for_ever(out, last + 1)
    os.read(reader, 6)
    time.sleep(wait)
    start = time.monotonic()
    os.kill(child, sent)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert time.monotonic() - start < 5  # a busy machine takes its time: alone it is half a second
    assert code == (-sent if sent == signal.SIGKILL else 128 + sent)
    if sent == signal.SIGKILL:
        with suppress(InputError), new_folder(out, "results", force=False):  # it exists, and is not to be replaced
            raise AssertionError
    assert (out / "notes").read_text() == "mine"
    assert {path.name for path in out.iterdir()} == {"a", "b", "notes", "manifest.json"}
    assert [path.name for path in out.parent.iterdir()] == [out.name], [str(p) for p in out.parent.rglob("*")]
    (number,) = {int((out / name).read_text()) for name in FILES}
    assert number > last
    return number


if __name__ == "__main__":
    folder, moments = Path(sys.argv[1]), int(sys.argv[2])
    with new_folder(folder, "results", force=False) as new:
        (new / "a").touch()
    (folder / "notes").write_text("mine")
    random.seed(0)
    reached = 0
    for _ in range(moments):
        reached = end_once(folder, reached, random.uniform(0, 0.1))
    sys.stdout.write(f"{reached}\n")
