"""Training of designs: data, the loop, and the runs from float to a few bits."""

from qfx.train.augment import shift_and_mirror as shift_and_mirror
from qfx.train.cifar_files import cifar as cifar
from qfx.train.coco_folder import coco as coco
from qfx.train.cost import HardwareCost as HardwareCost
from qfx.train.data import Data as Data
from qfx.train.detection import Detection as Detection
from qfx.train.hardware import Hardware as Hardware
from qfx.train.image_folder import image_folder as image_folder
from qfx.train.loop import accuracy as accuracy
from qfx.train.loop import fit as fit
from qfx.train.npz_file import npz as npz
from qfx.train.settings import DigitLimit as DigitLimit
from qfx.train.settings import Distill as Distill
from qfx.train.settings import Freeze as Freeze
from qfx.train.settings import Schedule as Schedule
from qfx.train.settings import Settings as Settings
from qfx.train.voc_folder import voc as voc
