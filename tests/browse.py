"""Looks at a report's page in headless Chromium; ``test_pictures`` starts it.

    python -m tests.browse PAGE wide|phone|dark

It prints what was seen, as JSON.
"""

import json
import shutil
import sys
from pathlib import Path

# The middle of the first worker's longest chunk, once it is some pixels wide.
LONGEST = """(() => {
  const bars = data.lanes[1].bars.filter(bar => bar[4]);
  const bar = bars.reduce((one, other) => other[2] > one[2] ? other : one);
  zoom(Math.min(1, 20 * bar[2] / (to - from)), bar[1] + bar[2] / 2);
  return [place(bar[1] + bar[2] / 2), TOP + ROW * 1.5];
})()"""
KEYS = ("ArrowRight", "ArrowDown", "ArrowRight", "ArrowRight")


def look(page):
    """Use a page as a reader does; return what it told."""
    seen = {"drawn": float(page.get_attribute("#lanes", "data-milliseconds"))}
    seen["fits"] = page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    x, y = page.evaluate(LONGEST)
    page.hover("#lanes", position={"x": x, "y": y})
    page.wait_for_function("!document.getElementById('tip').hidden", timeout=10_000)
    seen["hovered"] = page.inner_text("#tip")
    page.focus("#lanes")
    for key in KEYS:
        page.keyboard.press(key)
    seen["chosen"] = page.inner_text("#told")
    page.keyboard.press("ArrowRight")
    seen["next"] = page.inner_text("#told")
    page.keyboard.press("+")
    page.click("#all")
    return seen


def main(path, kind):
    """Open the page and print what was seen."""
    from playwright.sync_api import sync_playwright  # of the dependency group "heavy"

    size = {"width": 390, "height": 844} if kind == "phone" else {"width": 1100, "height": 900}
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        scheme = "dark" if kind == "dark" else "light"
        context = browser.new_context(viewport=size, color_scheme=scheme, offline=True)
        page = context.new_page()
        troubles = []
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.goto(Path(path).absolute().as_uri())
        print(json.dumps({**look(page), "troubles": troubles}))
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
