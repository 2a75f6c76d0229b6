"""What an algorithm of one's own is written with.

A subclass of `OptimizerDef` declares its numbers with the ranges here and gives `_slots`,
`_rates` and `_rule`; the helpers round as those of the algorithms of this package do. In place of
`a / b` and `jnp.sqrt(x)` stand `divide(a, b)` and `sqrt(x)`.
"""

from jaxmxopt._config import DecayRate as DecayRate
from jaxmxopt._config import Interval as Interval
from jaxmxopt._config import NonNegative as NonNegative
from jaxmxopt._config import Positive as Positive
from jaxmxopt._config import Real as Real
from jaxmxopt._config import Static as Static
from jaxmxopt._config import UnitInterval as UnitInterval
from jaxmxopt._definition import OptimizerDef as OptimizerDef
from jaxmxopt._in_place import after as after
from jaxmxopt._in_place import first as first
from jaxmxopt._numeric import clip as clip
from jaxmxopt._numeric import divide as divide
from jaxmxopt._numeric import norm as norm
from jaxmxopt._numeric import one_minus_power as one_minus_power
from jaxmxopt._numeric import scalar_like as scalar_like
from jaxmxopt._numeric import sign as sign
from jaxmxopt._numeric import sqrt as sqrt
from jaxmxopt._numeric import zeros_like as zeros_like
from jaxmxopt._rates import Rates as Rates
