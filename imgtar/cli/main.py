"""Where the program starts and ends: every way out has its exit status, and nobody sees a traceback for bad input."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import NoReturn

from imgtar import __version__

__all__ = ["main"]

_INTERRUPTED = 130


def main() -> NoReturn:
    """Run the command line of this process and exit."""
    _fill_standard_streams()
    arguments = sys.argv[1:]
    if arguments in (["--version"], ["-V"]):
        # Answered before anything heavy is imported: scripts ask this often.
        sys.stdout.write(f"imgtar {__version__}\n")
        _leave(0)
    try:
        status = run(arguments or ["--help"])
    except KeyboardInterrupt:
        # One more, while the first was being answered or before anything had begun.
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)
        with suppress(OSError):
            sys.stderr.write("imgtar: error[E_INTERRUPTED]: interrupted\n")
        status = _INTERRUPTED
    _leave(status)


def _fill_standard_streams() -> None:
    """Put something in the place of standard streams that are closed: the next file opened would take their number.

    What stands in for input and output fails when it is used, so that nobody believes to have read or written.
    """
    for fd, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, flags)  # The lowest number that is free: those below are taken.
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - it lives as long as the process
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def run(arguments: list[str]) -> int:
    """Run one command line; return the exit status. Prints errors."""
    from imgtar.cli.console import Failure, begin_run, committed, show_failure
    from imgtar.errors import ImgtarError, local_trouble

    as_json = "--json" in arguments
    begin_run()
    try:
        # SIGTERM is an interruption like Ctrl-C: staging is cleaned, nothing is committed.
        signal.signal(signal.SIGTERM, _interrupt)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup asks to go on
            signal.signal(signal.SIGHUP, _interrupt)
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        sys.stderr.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        return _run_app(arguments)
    except ImgtarError as error:
        return show_failure(Failure.of(error), as_json)
    except KeyboardInterrupt:
        message = (
            "interrupted after the change to the store was made: it stays"
            if committed()
            else "interrupted; nothing was committed"
        )
        failure = Failure("E_INTERRUPTED", message, "", _INTERRUPTED, {})
        return show_failure(failure, as_json)
    except OSError as error:
        doing = "working, after the change to the store was made: it stays" if committed() else "working"
        return show_failure(Failure.of(local_trouble(error, doing)), as_json)
    except MemoryError:
        failure = Failure("E_LIMIT", "out of memory", "give the process more memory, or fewer --jobs", 6, {})
        return show_failure(failure, as_json)
    except Exception as error:  # noqa: BLE001 - the last resort: a bug keeps its traceback, scripts get their document
        import traceback

        with suppress(OSError):
            traceback.print_exc()
        hint = "this is a bug in imgtar: please report it with the lines above"
        return show_failure(Failure("E_UNFORESEEN", f"{type(error).__name__}: {error}", hint, 1, {}), as_json)


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _run_app(arguments: list[str]) -> int:
    from imgtar.cli.quick import understood

    call = understood(arguments)
    if call is None:
        return _ask_typer(arguments)
    try:
        return call.run()
    except BrokenPipeError:
        raise _nobody_reads() from None


def _nobody_reads() -> Exception:
    from imgtar.errors import LocalTrouble

    message = "the reader of standard output went away"
    return LocalTrouble(message, hint="look at the program at the other end of the pipe")


def _ask_typer(arguments: list[str]) -> int:
    """Run a command line that is not plain: typer shows help, finds mistakes, or calls the command."""
    # typer brings pydantic, which would look through every installed package for plugins: 15 ms for nothing.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

    import typer
    import typer.main

    from imgtar.cli.app import app
    from imgtar.cli.console import Failure, show_failure

    # typer brings its own copy of click since 0.26; its exceptions are reached through what typer exports.
    usage_error: type[Exception] = next(
        each for each in typer.BadParameter.__mro__ if issubclass(each, Exception) and each.__name__ == "ClickException"
    )
    try:
        result = typer.main.get_command(app).main(args=arguments, prog_name="imgtar", standalone_mode=False)
    except typer.Exit as stop:
        result = stop.exit_code
    except SystemExit as stop:
        if stop.code != 1:
            raise
        # typer answers a broken pipe with a bare status 1, which is ours for bugs.
        raise _nobody_reads() from None
    except typer.Abort:
        raise KeyboardInterrupt from None
    except usage_error as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "imgtar"
        message = str(getattr(error, "message", error))
        format_message = getattr(error, "format_message", None)
        if format_message is not None:
            message = format_message()
        return show_failure(Failure("E_USAGE", message, f"try {path} --help", 2, {}), "--json" in arguments)
    if result == _INTERRUPTED:
        raise KeyboardInterrupt  # typer turns Ctrl-C into a bare status.
    return result if isinstance(result, int) else 0


def _leave(status: int) -> NoReturn:
    try:
        sys.stdout.flush()
    except OSError as error:
        # What was done is done; but a result that nobody got must not look like success (H247).
        if status == 0:
            status = 6
            with suppress(OSError):
                sys.stderr.write(f"imgtar: error[E_IO]: cannot write to standard output: {error.strerror}\n")
        # Python would try to flush once more at exit and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # As above; there is nobody to tell.
    sys.exit(status)
