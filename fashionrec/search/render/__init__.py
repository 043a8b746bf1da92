"""Render answers for people: pages, spreadsheets and pictures."""
