"""What an algorithm of one's own is written with.

A subclass of `OptimizerDef` declares its numbers with the ranges here and gives `_slots`,
`_rates` and `_rule`; the helpers round as those of the algorithms of this package do. In place of
`a / b` and `jnp.sqrt(x)` stand `divide(a, b)` and `sqrt(x)`.
"""

from jaxmxopt._core.config import DecayRate as DecayRate
from jaxmxopt._core.config import Interval as Interval
from jaxmxopt._core.config import NonNegative as NonNegative
from jaxmxopt._core.config import Positive as Positive
from jaxmxopt._core.config import Real as Real
from jaxmxopt._core.config import Static as Static
from jaxmxopt._core.config import UnitInterval as UnitInterval
from jaxmxopt._core.definition import OptimizerDef as OptimizerDef
from jaxmxopt._core.in_place import after as after
from jaxmxopt._core.in_place import first as first
from jaxmxopt._core.numeric import clip as clip
from jaxmxopt._core.numeric import divide as divide
from jaxmxopt._core.numeric import norm as norm
from jaxmxopt._core.numeric import one_minus_power as one_minus_power
from jaxmxopt._core.numeric import scalar_like as scalar_like
from jaxmxopt._core.numeric import sign as sign
from jaxmxopt._core.numeric import sqrt as sqrt
from jaxmxopt._core.numeric import zeros_like as zeros_like
from jaxmxopt._core.rates import Rates as Rates
