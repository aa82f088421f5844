"""Runs as a service inside a Debian that was booted for it (scripts/systemd-test.sh): kinglet under real systemd.

Only the standard library is there. Each step says what it saw; the first that fails ends the test.
"""

import ctypes
import http.client
import json
import os
import pathlib
import pwd
import shutil
import ssl
import subprocess
import sys
import threading
import time
import traceback

PACKAGES, WEIGHTS, FIXTURES, GUIDE, OUT = (pathlib.Path(argument) for argument in sys.argv[1:6])
PACKAGE = next(PACKAGES.glob("*.deb"))
STATE = pathlib.Path("/var/lib/kinglet")
PREDICT = "/v1/models/half_plus_three:predict"
PATIENCE = 30


def main():
    for step in (installs, answers, is_confined, knows_its_limit, reloads, takes_credentials, is_restarted_when_stuck,
                 is_restarted_when_stopped, restarts_lose_nothing, starts_on_demand, upgrades, goes_without_a_trace,
                 is_as_the_guide_says):
        started = time.monotonic()
        said = step()
        print(f"{step.__name__.replace('_', ' ')}: {said} ({time.monotonic() - started:.1f} s)", flush=True)


# Steps.


def installs():
    # As docs/DEPLOY.md has it.
    run("apt-get", "install", "--yes", str(PACKAGE))
    assert show("ActiveState") == "active" and show("Type") == "notify-reload", run("systemctl", "status", "kinglet")
    assert run("systemctl", "is-enabled", "kinglet") == "enabled"
    assert show("StatusText") == "3 models answer", show("StatusText")
    units = ["/usr/lib/systemd/system/kinglet.service", "/usr/lib/systemd/system/kinglet.socket"]
    verified = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True)
    assert (verified.returncode, verified.stderr) == (0, ""), verified
    shared = pathlib.Path("/usr/share")
    for path in ("bash-completion/completions/kinglet", "zsh/vendor-completions/_kinglet", "fish/vendor_completions.d/kinglet.fish"):
        assert "kinglet" in (shared / path).read_text(), path
    # Documents are left out of a minimal Debian.
    page = subprocess.run(["dpkg", "--fsys-tarfile", str(PACKAGE)], capture_output=True, check=True).stdout
    assert b"./usr/share/man/man1/kinglet.1.gz" in page
    return f"{run('systemctl', '--version').splitlines()[0]}, ready as apt-get ends"


def answers():
    curl = run("curl", "--silent", "--data", '{"instances": [1.0, 2.0, 5.0]}', f"http://127.0.0.1:8501{PREDICT}")
    assert json.loads(curl) == {"predictions": [3.5, 4.0, 5.5]}, curl
    log = journal("-o", "json")
    priorities = {json.loads(line)["PRIORITY"] for line in log.splitlines() if "MESSAGE" in line}
    assert "6" in priorities and "<6>" not in journal(), log
    return "curl gets its prediction, priorities reach the journal"


def is_confined():
    exposure = run("systemd-analyze", "security", "--threshold=15", "kinglet.service").splitlines()[-1]
    fields = dict(
        line.split(":\t", 1) for line in pathlib.Path(f"/proc/{show('MainPID')}/status").read_text().splitlines() if ":\t" in line
    )
    user = int(fields["Uid"].split()[0])
    assert pwd.getpwuid(user).pw_name == "kinglet" and user < 1000, f"not the package's user: {user}"
    # Its group is enough to read a model.
    install_model("iris", 1)
    for path in (STATE / "models").rglob("*"):
        shutil.chown(path, "root", "kinglet")
        path.chmod(0o750 if path.is_dir() else 0o640)
    configure(KINGLET_MODELS_DIR=STATE / "models")
    assert status("/v1/models/iris") == 200, journal()
    shutil.rmtree(STATE / "models")
    configure()
    assert int(fields["CapEff"], 16) == 0 and fields["NoNewPrivs"] == "1" and fields["Seccomp"] == "2", fields
    return f"user kinglet, no capabilities, {exposure.strip('→ ')}"


def knows_its_limit():
    # As the unit's own process sees it. Without the controller of memory systemd writes no limit; then a tree with the
    # same path has it.
    lines = "[Service]\nMemoryMax=200M\nExecStartPre=-/usr/bin/kinglet doctor\n"
    groups = pathlib.Path("/sys/fs/cgroup")
    by_systemd = "memory" in (groups / "cgroup.controllers").read_text().split()
    if not by_systemd:
        tree = pathlib.Path("/var/tmp/groups")
        group = tree / show("ControlGroup").lstrip("/")
        group.mkdir(parents=True)
        (group / "memory.max").write_text(f"{200 << 20}\n")
        lines += f"BindReadOnlyPaths={tree}:{groups}\nMemoryPressureWatch=off\n"
    drop_in(lines)
    assert "limited to 209.7 MB; --memory_limit 167.8 MB" in journal(), journal()
    drop_in(None)
    return f"MemoryMax=200M{'' if by_systemd else ' (in a tree of its own: no controller of memory here)'}: 80% of it"


def reloads():
    config = pathlib.Path("/etc/kinglet/models.config")
    config.write_text(models_config("iris"))
    install_model("iris", 1)
    configure(KINGLET_MODEL_CONFIG_FILE=config)
    assert status("/v1/models/iris") == 200 and status("/v1/models/digits") == 404
    pid = show("MainPID")
    # What the new configuration names answers when the command returns.
    install_model("digits", 1)
    install_model("iris", 2)
    config.write_text(models_config("iris", "digits"))
    run("systemctl", "reload", "kinglet")
    assert show("StatusText") == "2 models answer", show("StatusText")
    assert status("/v1/models/digits") == 200 and status("/v1/models/iris/versions/2/metadata") == 200
    # A mistake changes nothing, and is told.
    config.write_text("model_config_list { confg {} }")
    run("systemctl", "reload", "kinglet")
    assert status("/v1/models/digits") == 200 and "the model configuration stays as it is" in journal()
    assert show("MainPID") == pid and show("ActiveState") == "active"
    configure()
    return "new models and versions answer when systemctl returns; a mistake changes nothing"


def takes_credentials():
    store = pathlib.Path("/etc/credstore")
    store.mkdir(exist_ok=True)
    minted = run("kinglet", "token", "new", "--name=guest").splitlines()
    line = next(line for line in minted if line.startswith("guest "))
    token = next(word for text in minted if text is not line for word in text.split() if len(word) >= 24)
    (store / "kinglet.tokens").write_text(line + "\n")
    shutil.copy(FIXTURES / "localhost.pem", store / "kinglet.tls.crt")
    shutil.copy(FIXTURES / "localhost.key", store / "kinglet.tls.key")
    for file in store.iterdir():
        file.chmod(0o600)
    run("systemctl", "restart", "kinglet")
    trusted = ssl.create_default_context(cafile=FIXTURES / "localhost.pem")
    connection = http.client.HTTPSConnection("localhost", 8501, context=trusted, timeout=PATIENCE)
    for headers, expected in (({}, 401), ({"Authorization": f"Bearer {token}"}, 200)):
        connection.request("POST", PREDICT, '{"instances": [1.0]}', headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == expected, (answer.status, headers)
    connection.close()
    shutil.rmtree(store)
    run("systemctl", "restart", "kinglet")
    assert status("/readyz") == 200
    assert "no sign of life" not in journal(), "a server that stops is not stuck"
    return "files that only root may read give TLS and tokens"


def is_restarted_when_stuck():
    drop_in("[Service]\nWatchdogSec=2\n")
    pid, restarts = int(show("MainPID")), int(show("NRestarts"))
    time.sleep(3)
    assert int(show("MainPID")) == pid, "a server that works is left alone"
    held = hold_threads(pid, "worker-")
    started = time.monotonic()
    assert status("/healthz") == 200, "the loop still answers"
    until(lambda: int(show("NRestarts")) == restarts + 1 and status("/readyz") == 200, "a restart")
    assert "watchdog" in journal().lower() and int(show("MainPID")) != pid
    return f"{held} threads of inference held: a new server after {time.monotonic() - started:.1f} s of WatchdogSec=2"


def is_restarted_when_stopped():
    pid, restarts = int(show("MainPID")), int(show("NRestarts"))
    started = time.monotonic()
    os.kill(pid, 19)
    until(lambda: int(show("NRestarts")) == restarts + 1 and status("/readyz") == 200, "a restart")
    took = time.monotonic() - started
    drop_in(None)
    return f"SIGSTOP: a new server after {took:.1f} s"


def restarts_lose_nothing():
    run("systemctl", "stop", "kinglet")
    run("systemctl", "enable", "--now", "kinglet.socket")
    run("systemctl", "start", "kinglet")
    assert "(socket `kinglet.socket`)" in journal()
    pids, load = [show("MainPID")], Load(32)
    try:
        for _ in range(3):
            load.wait_for_more()
            run("systemctl", "restart", "kinglet")
            pids.append(show("MainPID"))
            load.wait_for_more()
            run("systemctl", "reload", "kinglet")
        load.wait_for_more()
    finally:
        counts, lost = load.stop()
    assert len(set(pids)) == 4, pids
    assert not lost, f"{len(lost)} of {sum(counts)}: {lost[:5]}"
    return f"three restarts and reloads under 32 clients: {sum(counts)} requests, none lost"


def starts_on_demand():
    run("systemctl", "stop", "kinglet")
    assert show("ActiveState") == "inactive" and show("ExecMainStatus") == "0", run("systemctl", "status", "kinglet")
    started = time.monotonic()
    assert status("/readyz") == 200 or until(lambda: status("/readyz") == 200, "ready")
    took = time.monotonic() - started
    run("systemctl", "disable", "--now", "kinglet.socket")
    run("systemctl", "restart", "kinglet")
    return f"a call to the socket of a stopped server is answered after {took * 1000:.0f} ms"


def upgrades():
    pid = show("MainPID")
    pathlib.Path("/etc/kinglet/kinglet.conf").write_text("KINGLET_LOG_LEVEL=debug\n")
    run("dpkg", "--force-confold", "--install", str(PACKAGE))
    assert show("MainPID") != pid and show("ActiveState") == "active"
    assert "debug" in pathlib.Path("/etc/kinglet/kinglet.conf").read_text(), "the administrator's file stays"
    return "the same package again restarts the server and keeps kinglet.conf"


def goes_without_a_trace():
    shutil.rmtree(STATE / "models")
    pathlib.Path("/etc/kinglet/models.config").unlink()
    run("dpkg", "--purge", "kinglet")
    left = [path for path in ("/usr/bin/kinglet", "/etc/kinglet", "/var/lib/kinglet", "/etc/systemd/system/kinglet.service.d")
            if os.path.lexists(path)]
    assert not left and show("LoadState") == "not-found", left
    return "purged"


def is_as_the_guide_says():
    desk = pathlib.Path.home() / "desk"
    desk.mkdir()
    shutil.copytree(WEIGHTS / "iris", desk / "iris")
    for file in PACKAGES.iterdir():
        shutil.copy(file, desk)
    said = follow(desk, "Debian and its relatives")
    assert "3.5" in said and '"AVAILABLE"' in said and "kgl_" in said, said
    token = next(word for word in said.split() if word.startswith("kgl_"))
    answered = [status("/v1/models/iris", "127.0.0.2", headers)
                for headers in ({}, {"Authorization": f"Bearer {token}"})]
    assert answered == [401, 200], answered
    run("dpkg", "--purge", "kinglet")
    shutil.rmtree("/etc/credstore")
    if not list(desk.glob("*.tar.gz")):
        return "from apt-get to a token (there is no archive to unpack)"
    follow(desk, "Any Linux")
    assert status(PREDICT.partition(":")[0]) == 200 and show("ActiveState") == "active"
    return "from apt-get to a token, and the archive as a service"


def follow(folder, heading):
    """Types the indented lines of a section of the guide, as root."""
    section = GUIDE.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line.strip() for line in section.splitlines() if line.startswith("    ")]
    return run("sh", "-euc", "\n".join(['exec 2>&1', 'sudo() { "$@"; }', f"cd {folder}", *lines]))


# What steps are made of.


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


def show(name):
    return run("systemctl", "show", "--value", "--property", name, "kinglet.service")


def journal(*more):
    run("journalctl", "--sync")
    return run("journalctl", "--unit", "kinglet", "--no-pager", *more)


def until(condition, what):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"no {what}"
        time.sleep(0.05)
    return True


def status(path, host="127.0.0.1", headers=()):
    """The status of a GET; 0 while nobody answers."""
    connection = http.client.HTTPConnection(host, 8501, timeout=PATIENCE)
    try:
        connection.request("GET", path, headers=dict(headers))
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def configure(**variables):
    lines = "".join(f"{name}={value}\n" for name, value in variables.items())
    pathlib.Path("/etc/kinglet/kinglet.conf").write_text(lines)
    run("systemctl", "restart", "kinglet")


def drop_in(text):
    folder = pathlib.Path("/etc/systemd/system/kinglet.service.d")
    shutil.rmtree(folder, ignore_errors=True)
    if text:
        folder.mkdir()
        (folder / "test.conf").write_text(text)
    run("systemctl", "daemon-reload")
    run("systemctl", "restart", "kinglet")


def install_model(name, version):
    place = STATE / "models" / name
    shutil.copytree(WEIGHTS / name / "1", place / "new")
    (place / "new").rename(place / str(version))
    # The server has another user.
    run("chmod", "--recursive", "a+rX", str(STATE / "models"))


def models_config(*names):
    entries = "".join(
        f'config {{ name: "{name}" base_path: "{STATE}/models/{name}" model_platform: "tensorflow" '
        "model_version_policy { all {} } } "
        for name in names
    )
    return f"model_config_list {{ {entries} }}"


def hold_threads(pid, name):
    """Stops the threads of that name as a debugger does, while the others run on."""
    seize, interrupt = 0x4206, 0x4207
    libc = ctypes.CDLL(None, use_errno=True)
    tasks = [int(task.name) for task in pathlib.Path(f"/proc/{pid}/task").iterdir()
             if (task / "comm").read_text().startswith(name)]
    for task in tasks:
        for request in (seize, interrupt):
            done = libc.ptrace(ctypes.c_long(request), ctypes.c_long(task), ctypes.c_void_p(), ctypes.c_void_p())
            assert done == 0, os.strerror(ctypes.get_errno())
        os.waitpid(task, 0x40000000)
    # A traced thread that has been killed is there until its tracer has taken note of it.
    def take_note():
        for task in tasks:
            ended = False
            while not ended:
                _, state = os.waitpid(task, 0x40000000)
                ended = os.WIFEXITED(state) or os.WIFSIGNALED(state)

    threading.Thread(target=take_note, daemon=True).start()
    return len(tasks)


class Load:
    """Clients on connections that are kept, and every fourth on a new one for each call."""

    def __init__(self, clients):
        self.counts, self.lost, self.stopping = [0] * clients, [], threading.Event()
        self.threads = [threading.Thread(target=self.run, args=[number]) for number in range(clients)]
        for thread in self.threads:
            thread.start()

    def run(self, number):
        connection = http.client.HTTPConnection("127.0.0.1", 8501 - number % 2, timeout=PATIENCE)
        while not self.stopping.is_set():
            try:
                connection.request("POST", PREDICT, '{"instances": [1.0]}')
                answer = connection.getresponse()
                body = answer.read()
                assert answer.status == 200 and b"3.5" in body, (answer.status, body)
            except Exception as error:
                self.lost.append(repr(error))
                connection.close()
            else:
                self.counts[number] += 1
            if number % 4 == 0:
                connection.close()

    def wait_for_more(self):
        before = list(self.counts)
        until(lambda: all(now >= then + 20 for now, then in zip(self.counts, before)) or self.lost, "progress")

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        return self.counts, self.lost


try:
    main()
    result = "passed"
except BaseException:
    traceback.print_exc(file=sys.stdout)
    result = "failed"
with open(OUT / "journal", "w") as file:
    subprocess.run(["journalctl", "--no-pager", "--unit", "kinglet", "--unit", "init.scope"], stdout=file)
(OUT / "result").write_text(result)
sys.exit(result != "passed")
