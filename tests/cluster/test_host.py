"""The host of an engine, without one: children of two kinds, and how they ended."""

import subprocess
import sys
import textwrap

HOST = """
    import json, os, signal, sys, time
    from pathlib import Path
    from h3lab.serial import signed
    from h3lab.cluster import host

    if __name__ == "__main__":
        signed.key()
        host.open_host(os.environ["H3LAB_HOME"])
        here = Path(sys.argv[1])

        def start(kind, name):
            arguments = {{"rank": (str(here), 1, 0), "worker": (str(here / "no job"), name)}}[kind]
            host.start(kind, arguments, str(here / f"{{name}}.log"), str(here / name))

        def ends():
            return {{p.name.partition(".")[0]: json.loads(p.read_text())["exit"] for p in here.glob("*.end.json")}}

        def until(condition):
            deadline = time.monotonic() + 60
            while not condition():
                assert time.monotonic() < deadline, ends()
                time.sleep(0.02)

        try:
            {body}
        finally:
            host.close_host()
"""


def run(body, folder):
    code = textwrap.dedent(HOST).format(body=body.strip().replace("\n", "\n        "))
    (folder / "host.py").write_text(code)
    done = subprocess.run(
        [sys.executable, str(folder / "host.py"), str(folder)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


BESIDE = """
server = host._nurseries["rank"]
server.open()
os.kill(server.pid, signal.SIGSTOP)  # as long as its imports take
start("rank", "first")
start("worker", "second")
until(lambda: "second" in ends())
print(ends(), (here / "first.start.json").exists())
"""


def test_a_worker_does_not_wait_for_what_the_first_rank_imports(tmp_path):
    assert run(BESIDE, tmp_path) == "{'second': 0} False\n"


MANY = """
for number in range(60):
    start("worker", f"w{number}")
until(lambda: len(ends()) == 60)
print(set(ends().values()))
"""


def test_every_exit_code_is_read_by_its_own_thread(tmp_path):
    assert run(MANY, tmp_path) == "{0}\n"
