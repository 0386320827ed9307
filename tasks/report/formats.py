"""Format figures for readers; a missing figure becomes ``not measured``."""

from datetime import UTC, datetime

MISSING = "not measured"
MINUS = "\N{MINUS SIGN}"


def number(value: float | None, *, signed: bool = False) -> str:
    """At most four significant digits, with thousands separators: 29.34, 1,234, 0.0021, 3.1e-05."""
    if value is None:
        return MISSING
    size = abs(value)
    if size == 0:
        text = "0"
    elif size >= 100_000_000:
        text = f"{size:.3g}"
    elif size >= 999.95:
        text = f"{size:,.0f}"
    elif size < 0.1:
        text = f"{size:.2g}" if size < 0.0001 else f"{size:.3g}"
    else:
        text = f"{size:.4g}"
    return (MINUS if value < 0 else "+" if signed and value > 0 else "") + text


def data_size(value: float | None) -> str:
    """Bytes in binary units: 377487360 -> ``360 MiB``."""
    if value is None:
        return MISSING
    size, units = abs(float(value)), ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    digits = f"{size:.0f}" if size >= 100 or units[0] == "bytes" else f"{size:.3g}"
    return f"{MINUS if value < 0 else ''}{digits} {units[0]}"


def quantity(value: float | None, unit: str) -> str:
    """A figure, with its unit if the unit is a physical one."""
    if value is None:
        return MISSING
    if unit in ("bytes", "B"):
        return data_size(value)
    return f"{number(value)} {unit}" if unit in ("ms", "s", "tokens/s", "nats") else number(value)


def interval(low: float, high: float, unit: str) -> str:
    """Both ends of an interval; only byte sizes carry their unit."""
    write = data_size if unit in ("bytes", "B") else number
    return f"{write(low)} to {write(high)}"


def percent(share: float | None, *, signed: bool = False) -> str:
    """0.476 -> ``47.6 %``."""
    if share is None:
        return MISSING
    scaled = 100 * share
    text = f"{abs(scaled):.0f}" if abs(scaled) >= 100 else f"{abs(scaled):.1f}"
    text = text.removesuffix(".0")
    sign = MINUS if scaled < 0 else "+" if signed and scaled > 0 else ""
    return f"{'' if text == '0' else sign}{text} %"


def duration(seconds: float | None) -> str:
    """4.2 -> ``4.2 s``, 372 -> ``6 min 12 s``, 7300 -> ``2 h 2 min``."""
    if seconds is None:
        return MISSING
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def moment(iso: str) -> str:
    """ISO 8601 -> ``23 Nov 2026, 08:12 UTC``; other text is returned unchanged."""
    try:
        when = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    if when.tzinfo is None:
        return f"{when.day} {when:%b %Y, %H:%M}"
    when = when.astimezone(UTC)
    return f"{when.day} {when:%b %Y, %H:%M} UTC"


def length(tokens: int) -> str:
    """A context length: 8192 -> ``8K``, 1500 -> ``1,500``."""
    return f"{tokens // 1024}K" if tokens >= 1024 and tokens % 1024 == 0 else f"{tokens:,}"


def count(value: int) -> str:
    """A large count: 134515008 -> ``134.5 M``."""
    for size, letter in ((10**9, "B"), (10**6, "M")):
        if value >= size:
            return f"{value / size:.1f} {letter}"
    return f"{value:,}"


def options(params: dict[str, object]) -> str:
    """Options of a component: ``sinks 4, window 252``."""
    return ", ".join(f"{key} {value}" for key, value in params.items())
