"""Tables and pages, from plain values."""
