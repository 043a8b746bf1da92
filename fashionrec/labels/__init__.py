"""YOLO labels: the only reader of `data.yaml`, and the only parser of label lines."""
