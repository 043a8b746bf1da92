"""YOLO labels on disk: one resolver of `data.yaml`, one parser of label lines."""
