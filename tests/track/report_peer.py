"""Parses a report as HTML: every tag closed, nothing loaded from anywhere; prints what it found."""
import json
import re
import sys
from html.parser import HTMLParser

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.tags, self.text, self.lines = [], {}, {}, []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        assert tag not in ("script", "link", "img", "iframe", "object"), tag
        assert not {"src", "href", "srcset", "onload", "data"} & set(attrs), attrs
        self.tags[tag] = self.tags.get(tag, 0) + 1
        if "line" in attrs.get("class", ""):
            self.lines.append(attrs["d"].count("M") + attrs["d"].count("L"))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (tag, self.open)
        self.open.pop()

    def handle_data(self, data):
        key = self.open[-1] if self.open else ""
        self.text[key] = self.text.get(key, "") + data


html = open(sys.argv[1], encoding="utf-8").read()
page = Page()
page.feed(html)
page.close()
assert not page.open, page.open
assert not re.search(r"https?:|url\(|@import", html)
json.dump({"tags": page.tags, "text": page.text, "lines": page.lines}, sys.stdout)
