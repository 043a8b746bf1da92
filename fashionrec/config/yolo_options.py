"""Names of the ultralytics options that `train` and `finetune` pass on unchanged.

A list of names refuses misspelt options at once, without importing ultralytics; a test compares it
with the installed package. Options that fashionrec sets itself (mode, task, project, ...) are not
listed.
"""

YOLO_OPTIONS: frozenset[str] = frozenset(
    """
    agnostic_nms amp angle augment auto_augment batch bgr box cache channels_last classes close_mosaic cls
    cls_pw cls_remap compile conf copy_paste copy_paste_mode cos_lr cutmix degrees deterministic device dfl
    dgrad dis distill_model dlam dlog dnn dropout dynamic embed epochs erasing fliplr flipud format fraction
    freeze hsv_h hsv_s hsv_v imgsz iou kobj line_width lr0 lrf mask_ratio max_det mixup momentum mosaic
    multi_scale nbs nms opset optimize optimizer overlap_mask patience perspective plots pose pretrained
    profile quantize rect retina_masks rle save save_conf save_crop save_frames save_json save_period save_txt
    scale seed shear show show_boxes show_conf show_labels simplify single_cls split stream_buffer time
    translate val verbose vid_stride visualize warmup_bias_lr warmup_epochs warmup_momentum weight_decay
    workers workspace
    """.split()
)
