"""Writes networks of torchvision and timm, a U-Net and a style network as ONNX files, for compare.py.

    python torch_models.py OUT [NAME ..]      (NETWORKS below unless named)

A NAME is one of timm, `torchvision.NAME`, `unet` or `style`. OUT/NAME.onnx is what PyTorch exports (opset 17), OUT/NAME.npz one random
image with the outputs that PyTorch computes. Weights are random, from a fixed seed: speed does not depend on them. Needs the packages
torch, torchvision, timm, onnx and onnxscript.
"""

import argparse
import pathlib

import numpy
import timm
import torch
import torchvision
from torch import nn

NETWORKS = {
    "resnet18": 224, "densenet121": 224, "regnety_004": 224, "resnext50_32x4d": 224, "resnetv2_50": 224, "repvgg_a0": 224,
    "mobilenetv3_large_100": 224, "mobilenetv4_conv_small": 224, "ghostnet_100": 224, "lcnet_100": 224, "mnasnet_100": 224,
    "torchvision.squeezenet1_1": 224, "torchvision.shufflenet_v2_x1_0": 224, "torchvision.googlenet": 224, "hrnet_w18_small": 224,
    "convnext_tiny": 224, "edgenext_xx_small": 256, "fastvit_t8": 256, "efficientvit_b0": 224, "efficientformer_l1": 224,
    "mobilevit_xs": 256, "mobilevitv2_050": 256, "poolformer_s12": 224, "deit_tiny_patch16_224": 224, "mixer_s32_224": 224,
    "torchvision.swin_t": 224, "unet": 256, "style": 224,
}  # fmt: skip


def twice(channels_in, channels):
    def once(depth):
        return [nn.Conv2d(depth, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]

    return nn.Sequential(*once(channels_in), *once(channels))


class UNet(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        sizes = [width, 2 * width, 4 * width, 8 * width]
        self.down = nn.ModuleList(twice(before, after) for before, after in zip([3, *sizes], sizes))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * size, size, 2, 2) for size in sizes[-2::-1])
        self.join = nn.ModuleList(twice(2 * size, size) for size in sizes[-2::-1])
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, x):
        kept = []
        for level, down in enumerate(self.down):
            x = down(nn.functional.max_pool2d(x, 2) if level else x)
            kept.append(x)
        for up, join, skip in zip(self.up, self.join, kept[-2::-1]):
            x = join(torch.cat([up(x), skip], 1))
        return self.head(x)


def reflected(before, after, kernel=3, stride=1):
    conv = nn.Conv2d(before, after, kernel, stride)
    return nn.Sequential(nn.ReflectionPad2d(kernel // 2), conv, nn.InstanceNorm2d(after, affine=True), nn.ReLU())


class Style(nn.Sequential):
    def __init__(self):
        grown = [nn.Sequential(nn.Upsample(scale_factor=2), reflected(size, size // 2)) for size in (64, 32)]
        middle = [reflected(64, 64) for _ in range(6)]
        last = [nn.ReflectionPad2d(4), nn.Conv2d(16, 3, 9)]
        super().__init__(reflected(3, 16, 9), reflected(16, 32, stride=2), reflected(32, 64, stride=2), *middle, *grown, *last)


def network(name):
    if name.startswith("torchvision."):
        name = name.removeprefix("torchvision.")
        return getattr(torchvision.models, name)(weights=None, **({"aux_logits": False} if name == "googlenet" else {}))
    return {"unet": UNet, "style": Style}.get(name, lambda: timm.create_model(name, pretrained=False))()


def write(name, size, out):
    torch.manual_seed(7)
    model = network(name).eval()
    # Statistics of a trained network are not those of a fresh one: zeros and ones would be folded into nothing.
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            with torch.no_grad():
                for values, low, high in (
                    (module.weight, 0.8, 1.2), (module.bias, -0.2, 0.2), (module.running_mean, -0.1, 0.1), (module.running_var, 0.8, 1.2),
                ):  # fmt: skip
                    values.uniform_(low, high)
    image = torch.randn(1, 3, size, size)
    with torch.no_grad():
        made = model(image)
    file = out / name.removeprefix("torchvision.")
    names = {"input_names": ["image"], "output_names": ["made"]}
    torch.onnx.export(model, (image,), str(file.with_suffix(".onnx")), dynamo=False, opset_version=17, **names)
    numpy.savez(file.with_suffix(".npz"), **{"in/image": image.numpy(), "out/made": made.numpy()})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("names", nargs="*", default=list(NETWORKS))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.names:
        write(name, NETWORKS.get(name, 224), options.out)


if __name__ == "__main__":
    main()
