"""Filters over a catalogue's columns: the expression language and the columns it reads."""
