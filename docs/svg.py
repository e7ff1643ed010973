"""The few shapes that the pictures of the concepts are made of, as SVG."""

from html import escape

INK, MUTED, GRID = "#1f2933", "#6b7785", "#d9dee4"
DOWN, LOST, KEPT, WAIT = "#9aa5b1", "#c62828", "#2e7d32", "#d98e04"
FONT = "ui-sans-serif, system-ui, sans-serif"
MONO = "ui-monospace, Menlo, monospace"


class Drawing:
    """A picture on a white ground, which is drawn on and written at the end. Units are pixels."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self._size = width, height
        self._title = title
        self._shapes: list[str] = []

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        color: str = INK,
        size: int = 13,
        mono: bool = False,
        bold: bool = False,
        anchor: str = "start",
    ) -> None:
        """Write words, with their base line at `y`."""
        weight = ' font-weight="600"' if bold else ""
        self._shapes.append(
            f'<text x="{x:g}" y="{y:g}" font-family="{MONO if mono else FONT}" font-size="{size}"'
            f' fill="{color}" text-anchor="{anchor}"{weight}>{escape(words)}</text>'
        )

    def bar(self, x: float, y: float, width: float, height: float, color: str) -> None:
        """Fill a rectangle."""
        self._shapes.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="2"'
            f' fill="{color}"/>'
        )

    def frame(self, x: float, y: float, width: float, height: float, color: str = GRID) -> None:
        """Draw the outline of a box."""
        self._shapes.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5"'
            f' fill="none" stroke="{color}" stroke-width="1.5"/>'
        )

    def line(self, start: tuple[float, float], end: tuple[float, float], color: str = GRID) -> None:
        """Draw a straight line."""
        self._shapes.append(
            f'<line x1="{start[0]:g}" y1="{start[1]:g}" x2="{end[0]:g}" y2="{end[1]:g}"'
            f' stroke="{color}" stroke-width="1.5"/>'
        )

    def arrow(
        self, start: tuple[float, float], end: tuple[float, float], color: str = MUTED
    ) -> None:
        """Draw a line to the right with a head."""
        self.line(start, end, color)
        x, y = end
        self._shapes.append(
            f'<path d="M{x - 6:g} {y - 4:g} L{x:g} {y:g} L{x - 6:g} {y + 4:g}" fill="none"'
            f' stroke="{color}" stroke-width="1.5"/>'
        )

    def dot(self, x: float, y: float, color: str, *, radius: float = 5) -> None:
        """Draw a filled circle."""
        self._shapes.append(f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{color}"/>')

    def __str__(self) -> str:
        """Return the file's content."""
        width, height = self._size
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
            f' width="{width}" height="{height}" role="img">'
        )
        ground = f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>'
        title = f"<title>{escape(self._title)}</title>"
        return "\n".join([head, title, ground, *self._shapes, "</svg>", ""])
