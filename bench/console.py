"""Claim: a tap on the page `/` is answered and painted within 50 ms (p95), and the page weighs under 150 kB.

A bundle of the simulated service is served on loopback to the system's Chromium, which taps a genre TAPS times. The
time of a tap ends in the frame that paints the answer. `--screenshots DIR` takes the pictures of the documentation
instead (`make screenshots`).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import http_stacks
from playwright.sync_api import Browser, sync_playwright

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
URL = f"http://127.0.0.1:{http_stacks.PORT}"
TAPS = 200
TAP = """async (taps) => {
  const chips = [...document.querySelectorAll("#genres label:not([hidden]) input")];
  const painted = () => new Promise((done) => requestAnimationFrame(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = done;
    channel.port2.postMessage(0);
  }));
  const watched = { subtree: true, childList: true, characterData: true, attributes: true };
  const changed = () => new Promise((done) => new MutationObserver((_, observer) => {
    observer.disconnect();
    done();
  }).observe(document.getElementById("reasons"), watched));
  const times = [];
  for (let tap = 0; tap < taps; tap++) {
    const [change, start] = [changed(), performance.now()];
    chips[tap % chips.length].click();
    await change;
    await painted();
    times.push(performance.now() - start);
    await new Promise((done) => setTimeout(done, 250));
  }
  return times.sort((a, b) => a - b);
}"""
NEWCOMER = "/#age=52&genres=Classical&genres=Jazz"
ADMIN_PORT = http_stacks.PORT + 1
TRAFFIC_SECONDS = 150
LISTENS_TELL = ("--early-loyalty", "0.5")
"""With them the model learns from listens, so that the page has buttons to play stations."""
PICTURES = {
    "operations.png": (f"http://127.0.0.1:{ADMIN_PORT}/ops", 1280, "light"),
    "try-light.png": (URL + NEWCOMER, 1280, "light"),
    "try-dark.png": (URL + NEWCOMER, 1280, "dark"),
    "try-phone.png": (URL + NEWCOMER, 360, "light"),
    "beside.png": (URL + NEWCOMER, 1280, "light"),
    "experiment.png": (f"{URL}/experiments/simulated", 1280, "light"),
    "study.png": (f"{URL}/report", 1280, "light"),
}


def firstspin(*arguments: object) -> None:
    """Run a command."""
    words = [sys.executable, "-m", "firstspin", *map(str, arguments)]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def study(work: Path) -> None:
    """Write the study of the bundle, beside it."""
    data, card = work / "world", work / "scorecard.json"
    firstspin("evaluate", "--data", data, "--models", "lightgbm", "--folds", 2, "--out", card)
    firstspin("report", "--data", data, "--bundle", work / "bundle", "--scorecard", card, "--name", "simulated service")


def simulated_experiment(work: Path) -> list[str]:
    """The options that serve an ended experiment of simulated users, the study of the bundle, and a challenger."""
    study(work)
    firstspin("train", "--data", work / "world", "--out", work / "challenger", "--model", "logistic")
    out = work / "experiment"
    firstspin("experiment", "simulate", "--users", 20_000, "--seed", 1, "--bundle", work / "bundle", "--out", out)
    store = ["--events", f"sqlite:///{out / 'events.sqlite'}", "--events-secret", str(out / "events.secret")]
    plan = ["--experiment", str(out / "experiment.toml"), "--state", str(work / "state")]
    return [*store, *plan, "--shadow", str(work / "challenger"), "--admin-port", str(ADMIN_PORT), "--workers", "2"]


def traffic(seconds: float) -> None:
    """Requests at an uneven rate, so that the page of operations has something to show."""
    generator, end = random.Random(1), time.monotonic() + seconds
    while time.monotonic() < end:
        body = json.dumps({"age": generator.randint(14, 70), "genres": ["Jazz"]} if generator.random() < 0.8 else {})
        kind = {"content-type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(f"{URL}/invocations", body.encode(), kind)).read()
        time.sleep(generator.expovariate(40 + 20 * math.sin(time.monotonic() / 12)))


@contextmanager
def served(options: Callable[[Path], list[str]] = lambda _: [], *world_options: str) -> Iterator[Browser]:
    """A browser, and the service of a small model at URL; `options` are made in the folder of its bundle."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        work = Path(folder)
        http_stacks.small(work, *world_options)
        command = [*http_stacks.service(work), *options(work)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as service:
            assert service.stdout
            try:
                service.stdout.readline()  # it answers
                browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
                yield browser
                browser.close()
            finally:
                service.terminate()


def measure(browser: Browser) -> None:
    """Print the times and the weights."""
    page = browser.new_page(viewport={"width": 1280, "height": 980})
    sizes: dict[str, int] = {}
    page.on("response", lambda reply: sizes.update({reply.url: len(reply.body())}))
    page.goto(URL, wait_until="networkidle")
    times = page.evaluate(TAP, TAPS)
    print(f"tap to painted answer, {TAPS} taps: p50 {times[TAPS // 2]:.0f} ms, p95 {times[TAPS * 95 // 100]:.0f} ms")
    modules = sum(size for url, size in sizes.items() if url.endswith(".js"))
    print(f"page: {sum(sizes.values()) / 1000:.0f} kB, of which modules: {modules / 1000:.0f} kB")


def take_screenshots(browser: Browser, out: Path) -> None:
    """Write each picture."""
    out.mkdir(parents=True, exist_ok=True)
    print(f"{TRAFFIC_SECONDS} s of requests")
    traffic(TRAFFIC_SECONDS)
    for name, (url, width, theme) in PICTURES.items():
        page = browser.new_page(
            viewport={"width": width, "height": 980 if width > 640 else 740},
            color_scheme="dark" if theme == "dark" else "light",
            reduced_motion="reduce",
        )
        page.goto(url, wait_until="load" if url.endswith("/ops") else "networkidle")  # events never end
        shown = page.locator("#reasons li, .experiment, .report").first
        shown.wait_for(state="attached", timeout=120_000)  # the page reloads itself until the analysis has ended
        if name == "beside.png":
            page.locator("#beside").screenshot(path=out / name)  # waits until the challenger has answered
        else:
            page.screenshot(path=out / name)
        page.close()
        print(out / name)


def main() -> None:
    """Measure, or take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--screenshots", type=Path, metavar="DIR")
    out = parser.parse_args().screenshots
    if out:
        with served(simulated_experiment, *LISTENS_TELL) as browser:
            take_screenshots(browser, out)
    else:
        with served() as browser:
            measure(browser)


if __name__ == "__main__":
    main()
