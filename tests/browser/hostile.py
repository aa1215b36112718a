"""Names that a page must bear: commas, quotes, line breaks, markup, and what a shell would run."""

CLASSES = ("cat", 'a "big", dog', "</script><script>alert(1)</script>", "$x$ & <b>", "horse\nand cart")
COUNT = 24
NAMES = [f'{i}, "quoted" <img src=x onerror=alert({i})> $(touch x).jpg' for i in range(COUNT)]
