"""Run a program that ends with its parent: ``tether.py PARENT_PID SIGNAL CGROUP PROGRAM ARG…``.

Run as a script, by path and with ``python -I -S``: it imports next to nothing, so that it costs a
few milliseconds, and then becomes the program by ``exec``. The kernel is asked to send it the
signal (a number) when the parent dies, however the parent dies (prctl(2), PR_SET_PDEATHSIG; it
survives exec).
The program gets a session of its own: the terminal's interrupt reaches the harness alone, which
then stops its children in order.

``CGROUP`` is the folder of a control group that the program is moved to before it begins, so that
nothing it does is missed by what is attached there; empty leaves it where its parent is.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
READY = "READY"
"""The line that a child prints when it has begun, where somebody waits for that."""
HEALTH = "HEALTH "
"""What a line begins with in which a child says how it goes."""


def tethered(
    argv: "list[str]", number: int = signal.SIGKILL, cgroup: "os.PathLike[str] | None" = None
) -> "list[str]":
    """Return the command that runs ``argv`` as a child of this process, and ends with it.

    Args:
        argv: a program and its arguments.
        number: the signal that the program gets when this process dies.
        cgroup: the folder of the control group that it runs in; None is this process's own.
    """
    group = "" if cgroup is None else os.fspath(cgroup)
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(int(number)), group, *argv]


def main() -> None:
    """Become the program, unless the parent has gone already."""
    parent_pid, number = int(sys.argv[1]), int(sys.argv[2])
    cgroup, program = sys.argv[3], sys.argv[4:]
    if ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
        sys.exit("the kernel refused PR_SET_PDEATHSIG")
    if os.getppid() != parent_pid:
        sys.exit("the harness ended before its child began")
    if cgroup:
        try:
            group = os.open(f"{cgroup}/cgroup.procs", os.O_WRONLY)
            os.write(group, b"0\n")  # which stands for the writer
            os.close(group)
        except OSError as error:
            # It is measured all the same; only what the kernel sees of it is missing.
            os.write(2, f"not in control group {cgroup}: {error.strerror}\n".encode())
    os.setsid()
    # Python ignores SIGPIPE, and what is ignored stays so through exec.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execvp(program[0], program)  # noqa: S606 - an argument list; no shell is wanted
    except OSError as error:
        sys.exit(f"cannot run {program[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
