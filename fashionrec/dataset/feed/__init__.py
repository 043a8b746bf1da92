"""Download the photos of product feeds: politely, safely and only once."""
