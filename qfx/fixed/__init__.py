"""Fixed-point numbers: formats, integer codes, and K-hot constants."""

from qfx.fixed.codes import decode as decode
from qfx.fixed.codes import encode as encode
from qfx.fixed.codes import overflow_codes as overflow_codes
from qfx.fixed.codes import requantize as requantize
from qfx.fixed.codes import require_codes as require_codes
from qfx.fixed.format import FRAC_RANGE as FRAC_RANGE
from qfx.fixed.format import MAX_FRAC as MAX_FRAC
from qfx.fixed.format import MAX_WIDTH as MAX_WIDTH
from qfx.fixed.format import TABLE_WIDTH as TABLE_WIDTH
from qfx.fixed.format import WIDEST as WIDEST
from qfx.fixed.format import Fixed as Fixed
from qfx.fixed.format import Overflow as Overflow
from qfx.fixed.format import Rounding as Rounding
from qfx.fixed.format import fixed_for_range as fixed_for_range
from qfx.fixed.format import require_input_format as require_input_format
from qfx.fixed.format import simplest_frac as simplest_frac
from qfx.fixed.khot import count_digits as count_digits
from qfx.fixed.khot import digit_counts as digit_counts
from qfx.fixed.khot import digits_of as digits_of
from qfx.fixed.khot import nearest_khot as nearest_khot
