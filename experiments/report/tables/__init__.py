"""The tables of a report, each as text, Markdown, CSV and LaTeX."""
