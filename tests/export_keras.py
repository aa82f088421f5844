"""Exports Keras models as SavedModels, each with a recorded input and TensorFlow's output for it.

    pip install tensorflow-cpu && python tests/export_keras.py FOLDER [name ...]
    KINGLET_EXPORTS=FOLDER cargo test --test saved_models exported
"""
import os, sys, traceback
os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
import numpy as np, tensorflow as tf, keras
from keras import layers as L
out = sys.argv[1]; only = sys.argv[2:]
rng = np.random.default_rng(0)
def image(size): return rng.random((1, size, size, 3), dtype=np.float32) * 255
A = keras.applications
MODELS = {
  'mobilenet': lambda: (A.MobileNet(weights=None, input_shape=(64,64,3), alpha=.25, classes=10), image(64)),
  'mobilenet_v2': lambda: (A.MobileNetV2(weights=None, input_shape=(64,64,3), alpha=.35, classes=10), image(64)),
  'mobilenet_v3_small': lambda: (A.MobileNetV3Small(weights=None, input_shape=(64,64,3), classes=10), image(64)),
  'resnet50': lambda: (A.ResNet50(weights=None, input_shape=(64,64,3), classes=10), image(64)),
  'resnet50_v2': lambda: (A.ResNet50V2(weights=None, input_shape=(64,64,3), classes=10), image(64)),
  'efficientnet_b0': lambda: (A.EfficientNetB0(weights=None, input_shape=(64,64,3), classes=10), image(64)),
  'efficientnet_v2_b0': lambda: (A.EfficientNetV2B0(weights=None, input_shape=(64,64,3), classes=10), image(64)),
  'densenet121': lambda: (A.DenseNet121(weights=None, input_shape=(64,64,3), classes=10), image(64)),
  'inception_v3': lambda: (A.InceptionV3(weights=None, input_shape=(96,96,3), classes=10), image(96)),
  'xception': lambda: (A.Xception(weights=None, input_shape=(96,96,3), classes=10), image(96)),
  'nasnet_mobile': lambda: (A.NASNetMobile(weights=None, input_shape=(64,64,3), classes=10), image(64)),
  'convnext_tiny': lambda: (A.ConvNeXtTiny(weights=None, input_shape=(64,64,3), classes=10), image(64)),
  'vgg16_small': lambda: (A.VGG16(weights=None, include_top=False, input_shape=(32,32,3)), image(32)),
  'lstm': lambda: (keras.Sequential([keras.Input((12,5)), L.LSTM(8, return_sequences=True), L.LSTM(6), L.Dense(3)]), rng.random((2,12,5),dtype=np.float32)),
  'gru': lambda: (keras.Sequential([keras.Input((12,5)), L.GRU(8), L.Dense(3)]), rng.random((2,12,5),dtype=np.float32)),
  'bidirectional': lambda: (keras.Sequential([keras.Input((12,5)), L.Bidirectional(L.LSTM(8)), L.Dense(3)]), rng.random((2,12,5),dtype=np.float32)),
  'simple_rnn': lambda: (keras.Sequential([keras.Input((12,5)), L.SimpleRNN(8)]), rng.random((2,12,5),dtype=np.float32)),
  'embedding': lambda: (keras.Sequential([keras.Input((7,), dtype='int32'), L.Embedding(20, 4), L.GlobalAveragePooling1D(), L.Dense(2)]), rng.integers(0,20,(3,7)).astype(np.int32)),
  'transformer': lambda: transformer(),
  'conv1d': lambda: (keras.Sequential([keras.Input((30,4)), L.Conv1D(8,3,padding='causal',dilation_rate=2), L.MaxPooling1D(2), L.LayerNormalization(), L.Conv1D(4,3,strides=2), L.Flatten(), L.Dense(2)]), rng.random((2,30,4),dtype=np.float32)),
  'conv_transpose': lambda: (keras.Sequential([keras.Input((8,8,3)), L.Conv2DTranspose(4,3,strides=2,padding='same'), L.UpSampling2D(2), L.UpSampling2D(2,interpolation='bilinear'), L.Conv2D(2,1)]), rng.random((1,8,8,3),dtype=np.float32)),
  'conv3d': lambda: (keras.Sequential([keras.Input((6,8,8,2)), L.Conv3D(3,3), L.MaxPooling3D(2), L.Flatten(), L.Dense(2)]), rng.random((1,6,8,8,2),dtype=np.float32)),
  'groups': lambda: (keras.Sequential([keras.Input((8,8,4)), L.Conv2D(8,3,groups=2), L.GroupNormalization(2), L.SeparableConv2D(6,3,dilation_rate=1), L.Conv2D(4,3,dilation_rate=2,padding='same'), L.PReLU(), L.ELU(), L.LeakyReLU()]), rng.random((2,8,8,4),dtype=np.float32)),
  'preprocess': lambda: (keras.Sequential([keras.Input((20,24,3)), L.Resizing(16,16), L.Rescaling(1/127.5,offset=-1), L.CenterCrop(8,8), L.Normalization(mean=[.1,.2,.3],variance=[1.,2.,3.]), L.ZeroPadding2D(1), L.Cropping2D(1)]), rng.random((2,20,24,3),dtype=np.float32)*255),
  'activations': lambda: (keras.Sequential([keras.Input((9,))]+[L.Dense(9,activation=a) for a in ('gelu','silu','softplus','softsign','hard_sigmoid','hard_silu','mish','selu','exponential','tanh','sigmoid','log_softmax','softmax')]), rng.random((3,9),dtype=np.float32)),
  'pools': lambda: (keras.Sequential([keras.Input((9,9,3)), L.AveragePooling2D(3,strides=2,padding='same'), L.MaxPooling2D(2,padding='same'), L.GlobalMaxPooling2D()]), rng.random((2,9,9,3),dtype=np.float32)),
  'attention': lambda: attention(),
  'merge': lambda: merge(),
}
def transformer():
    x = keras.Input((10,), dtype='int32'); e = L.Embedding(50, 16)(x) + L.Embedding(10, 16)(tf.range(10))
    a = L.MultiHeadAttention(2, 8)(e, e); h = L.LayerNormalization()(a + e)
    f = L.Dense(16)(L.Dense(32, activation='gelu')(h)); y = L.Dense(2)(L.GlobalAveragePooling1D()(L.LayerNormalization()(f + h)))
    return keras.Model(x, y), rng.integers(0, 50, (2, 10)).astype(np.int32)
def attention():
    x = keras.Input((6, 8)); return keras.Model(x, L.Attention(use_scale=True)([x, x, x])), rng.random((2,6,8),dtype=np.float32)
def merge():
    x = keras.Input((6,)); a, b = L.Dense(4)(x), L.Dense(4)(x)
    y = L.Concatenate()([L.Add()([a,b]), L.Multiply()([a,b]), L.Maximum()([a,b]), L.Minimum()([a,b]), L.Subtract()([a,b]), L.Average()([a,b]), L.Dot(1)([a,b]), L.UnitNormalization()(a)])
    return keras.Model(x, L.Permute((2,1))(L.RepeatVector(3)(y))), rng.random((2,6),dtype=np.float32)
for name, make in MODELS.items():
    if only and name not in only: continue
    if os.path.exists(f'{out}/{name}/golden.npz'): continue
    try:
        model, x = make()
        # Moving statistics other than 0 and 1, so that they count.
        for w in model.weights:
            if 'moving_variance' in w.path: w.assign(rng.uniform(.5, 2, w.shape))
            elif 'moving_mean' in w.path or 'beta' in w.path or 'bias' in w.path: w.assign(rng.normal(0, .1, w.shape))
        model.export(f'{out}/{name}/1', verbose=False)
        sig = tf.saved_model.load(f'{out}/{name}/1').signatures['serving_default']
        alias = list(sig.structured_input_signature[1])[0]
        y = sig(**{alias: tf.constant(x)})
        np.savez(f'{out}/{name}/golden.npz', **{f'c/in/{alias}': x}, **{f'c/out/{k}': v.numpy() for k, v in y.items()})
        print('made', name, flush=True)
    except Exception as e:
        print('FAILED', name, type(e).__name__, str(e)[:200], flush=True)
