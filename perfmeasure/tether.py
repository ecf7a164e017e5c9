"""Run a program that ends with the process that started it: ``tether.py PARENT_PID PROGRAM ARG…``.

Run as a script, by path and with ``python -I -S``: it imports next to nothing, so that it costs a
few milliseconds, and then becomes the program by ``exec``. The kernel is asked to send SIGKILL to
it when the parent dies, however the parent dies (prctl(2), PR_SET_PDEATHSIG; it survives exec).
The program gets a session of its own: the terminal's interrupt reaches the harness alone, which
then stops its children in order.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Become the program, unless the parent has gone already."""
    parent_pid, program = int(sys.argv[1]), sys.argv[2:]
    if ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.exit("the kernel refused PR_SET_PDEATHSIG")
    if os.getppid() != parent_pid:
        sys.exit("the harness ended before its child began")
    os.setsid()
    # Python ignores SIGPIPE, and what is ignored stays so through exec.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execvp(program[0], program)  # noqa: S606 - an argument list; no shell is wanted
    except OSError as error:
        sys.exit(f"cannot run {program[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
