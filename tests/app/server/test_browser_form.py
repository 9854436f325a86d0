"""The form of the page that makes videos, in Chromium."""

from __future__ import annotations

import base64
from typing import Any

from test_browser import Open, address, browser, live_makers, pytestmark, show

__all__ = ["address", "browser", "live_makers", "pytestmark", "show"]


def test_options_that_do_not_fit_the_mode_are_hidden_and_not_sent(show: Open) -> None:
    page = show()
    sent = []
    still = base64.b64decode("R0lGODlhAQABAAAAACwAAAAAAQABAAA=")

    def answer(route: Any) -> None:
        sent.append(route.request.post_data)
        route.fulfill(content_type="image/gif", body=still)

    page.route("**/v1/previews", answer)
    page.get_by_role("tab", name="Speak").click()
    page.locator("#speak-form").get_by_text("Picture", exact=True).click()
    for show_what, name, value in (
        ("Their own footage", "timeline", "source"),
        ("The head alone", "head_motion", "0.5"),
    ):
        page.get_by_text(show_what).first.click()
        field = page.locator(f"#speak-form [name={name}]")
        if name == "timeline":
            field.select_option(value)
        else:
            field.fill(value)
        with page.expect_request("**/v1/previews"):
            page.locator("#preview").click()
    of_paste, of_head = sent
    assert 'name="timeline"\r\n\r\nsource' in of_paste and "head_motion" not in of_paste
    assert 'name="head_motion"\r\n\r\n0.5' in of_head and "timeline" not in of_head
    assert not page.locator("#paste-options").is_visible()
