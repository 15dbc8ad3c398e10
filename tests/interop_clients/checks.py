"""Runs the checks of a client script and prints a table with one line for each; the failures follow on stderr."""
import sys, traceback

results = []


def check(client, title):
    """Decorator: runs the function as one check."""
    def decorate(function):
        try:
            function()
            results.append((client, title, None))
        except BaseException:  # noqa: BLE001: any exception is a failed check
            results.append((client, title, traceback.format_exc()))
    return decorate


def end():
    """Prints the table and exits with 1 if a check failed."""
    for client, title, error in results:
        print(f"| {client} | {title} | {'FAILED' if error else 'ok'} |")
    failed = [(client, title, error) for client, title, error in results if error]
    for client, title, error in failed:
        print(f"\n{client}: {title}\n{error}", file=sys.stderr)
    sys.exit(1 if failed else 0)
