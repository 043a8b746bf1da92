"""Examples in the help of each command and group. Paths are those of the repository."""

EXAMPLES = {
    "": (
        "demo",
        "build-index examples/products.csv --index data/catalogue",
        "query photo.jpg --index data/catalogue --html answer.html",
    ),
    "fetch-dataset": (
        "fetch-dataset yolo:examples/garments --out data/garments",
        'fetch-dataset coco:export.zip --map "t-shirt=top" --out data/merged',
    ),
    "train": ("train data=data/garments/data.yaml model=yolov8n.yaml epochs=50", "train --resume name=garments"),
    "finetune": (
        "finetune --weights runs/train/garments --data examples/street/data.yaml \\\n"
        "    --replay data/garments/data.yaml",
    ),
    "evaluate": (
        "evaluate --weights best.pt --data data/garments/data.yaml",
        "evaluate --index data/catalogue --queries examples/queries.csv",
    ),
    "compare": ("compare yolov8n.yaml yolo11n.yaml --data data/garments/data.yaml",),
    "export": (
        "export runs/train/garments --out garments.bundle",
        "export best.pt --out int8.bundle --precision int8 --images photos/",
    ),
    "build-index": (
        "build-index examples/products.csv --index data/catalogue",
        "build-index photos/ --index data/catalogue --detector none",
    ),
    "caption": (
        "caption --index data/catalogue --dry-run",
        "caption --index data/catalogue --max-cost 20",
    ),
    "query": (
        "query photo.jpg --index data/catalogue --html answer.html",
        'query --text "navy dress" --where "price < 50000"',
        'query photo.jpg --text "in red" --goes-with --json',
    ),
    "demo": ("demo --open",),
    "doctor": ("doctor", "doctor runs/demo/catalogue"),
    "dataset audit": ("dataset audit data/garments --html audit.html --strict",),
    "dataset export": ("dataset export data/garments --to coco --out garments-coco",),
    "dataset": ("dataset audit data/garments --html audit.html",),
    "runs": ("runs list", "runs compare garments garments2"),
    "catalogue": ("catalogue show data/catalogue", "catalogue rollback data/catalogue"),
    "config": ("config show query",),
    "runs list": ("runs list",),
    "runs show": ("runs show garments",),
    "runs compare": ("runs compare garments garments2",),
    "runs promote": ('runs promote garments --force --why "more robust in tests"',),
    "runs demote": ("runs demote garments",),
    "catalogue list": ("catalogue list data",),
    "catalogue show": ("catalogue show data/catalogue", "catalogue show data/catalogue --product p00003"),
    "catalogue add": ("catalogue add new.csv --index data/catalogue",),
    "catalogue remove": ("catalogue remove p00003 p00007 --index data/catalogue",),
    "catalogue update": ("catalogue update examples/stock.csv --index data/catalogue",),
    "catalogue verify": ("catalogue verify data/catalogue",),
    "catalogue rollback": ("catalogue rollback data/catalogue --to 000002",),
    "catalogue reindex": ("catalogue reindex data/catalogue --max-memory 200",),
    "catalogue compact": ("catalogue compact data/catalogue",),
    "catalogue export": ("catalogue export export/ --index data/catalogue",),
    "catalogue import": ("catalogue import export/ --index data/copy",),
    "config show": ("config show query",),
    "config schema": ("config schema > fashionrec.schema.json",),
}
