"""Networks: the DenseNet U-Net, its heads, and the porting of pretrained weights."""
