"""Answers for people: pages, spreadsheets and pictures."""
