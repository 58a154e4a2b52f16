"""Tables in Markdown."""
import pandas as pd


def markdown_table(frame):
    """Format a table in Markdown; a missing number is an empty cell."""
    rows = frame.astype(object).where(frame.notna(), "").values.tolist()
    lines = [[*frame.columns], ["---"] * len(frame.columns), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def round_columns(frame, **digits):
    """Format columns with a fixed number of digits."""
    def format_number(x, n):
        return "" if pd.isna(x) else f"{x:.{n}f}"
    return frame.assign(**{name: [format_number(x, n) for x in frame[name]] for name, n in digits.items()})
