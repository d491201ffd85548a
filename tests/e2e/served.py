"""Shared by the tests with real clients: a server as a process of its own, and checks that are counted."""
import atexit
import subprocess
import sys
import threading

passed, failures = 0, []


def check(condition, what):
    global passed
    if condition:
        passed += 1
    else:
        failures.append(what)
        print(f"FAILED: {what}", file=sys.stderr)


def start(binary, model, *flags):
    """A server on a free port: (process, url). What it logs is gathered in process.log."""
    process = subprocess.Popen([binary, "serve", model, "--port", "0", *flags], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    atexit.register(process.kill)  # where a test breaks off; does nothing to one that has ended
    url = process.stdout.readline().strip()
    if not url:
        sys.exit(f"the server did not start: {process.stderr.read()}")
    process.log = []
    threading.Thread(target=lambda: process.log.extend(process.stderr), daemon=True).start()
    return process, url


def error_of(call, kind):
    try:
        call()
    except kind as error:
        return error
    return None


def finish():
    print(f"{passed} checks passed, {len(failures)} failed")
    sys.exit(1 if failures else 0)
