"""What the clients' scripts share: each check is a line of a table, and any that fails is told at the end."""
import sys, traceback

done = []


def check(client, what):
    """Runs the function below it as one check."""
    def run(function):
        try:
            function()
            done.append((client, what, None))
        except BaseException:  # noqa: BLE001: whatever it is, it is the check's result
            done.append((client, what, traceback.format_exc()))
    return run


def end():
    for client, what, trouble in done:
        print(f"| {client} | {what} | {'FAILED' if trouble else 'ok'} |")
    failed = [(client, what, trouble) for client, what, trouble in done if trouble]
    for client, what, trouble in failed:
        print(f"\n{client}: {what}\n{trouble}", file=sys.stderr)
    sys.exit(1 if failed else 0)
