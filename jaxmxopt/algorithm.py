"""Names that an algorithm of one's own is written with.

A subclass of `OptimizerDef` declares its hyperparameters, each with a range, says with `acts_on`
what a rule may be given, and defines at most five methods: `slots`, `rates`, `adapt`, `rule` and
`check_weight`. Precision, masters, row-sparse gradients, schedules, multipliers, compilation and
files are added around them.

- Hyperparameters: `Real`, `NonNegative`, `Positive`, `DecayRate`, `UnitInterval`, `Interval`,
  `Static`.
- Weights: `Names` says what the name of a weight decides, `Like` describes a weight and makes the
  slots that go with it.
- Numbers of an update: `Rates`, `one_minus_power`, `real`. They are Python's on the host and traced
  elsewhere; `sqrt`, `minimum` and `maximum` take both.
- Functions of whole matrices, many weights at once: `batched`.
- Arithmetic of a rule: `capped`, `clip`, `decay`, `divide`, `is_zero`, `maximum`, `minimum`,
  `norm`, `sign`, `sqrt`, `squarable`, `unless`.

Arithmetic rounds as in the algorithms of this package: `divide(a, b)` stands for `a / b`, and
`sqrt(x)` for `jnp.sqrt(x)`.
"""

from jaxmxopt._core.algorithm import Names as Names
from jaxmxopt._core.algorithm import OptimizerDef as OptimizerDef
from jaxmxopt._core.batches import batched as batched
from jaxmxopt._core.config import DecayRate as DecayRate
from jaxmxopt._core.config import Interval as Interval
from jaxmxopt._core.config import NonNegative as NonNegative
from jaxmxopt._core.config import Positive as Positive
from jaxmxopt._core.config import Real as Real
from jaxmxopt._core.config import Static as Static
from jaxmxopt._core.config import UnitInterval as UnitInterval
from jaxmxopt._core.numeric import capped as capped
from jaxmxopt._core.numeric import clip as clip
from jaxmxopt._core.numeric import decay as decay
from jaxmxopt._core.numeric import divide as divide
from jaxmxopt._core.numeric import is_zero as is_zero
from jaxmxopt._core.numeric import maximum as maximum
from jaxmxopt._core.numeric import minimum as minimum
from jaxmxopt._core.numeric import norm as norm
from jaxmxopt._core.numeric import one_minus_power as one_minus_power
from jaxmxopt._core.numeric import real as real
from jaxmxopt._core.numeric import sign as sign
from jaxmxopt._core.numeric import sqrt as sqrt
from jaxmxopt._core.numeric import squarable as squarable
from jaxmxopt._core.numeric import unless as unless
from jaxmxopt._core.rates import Rates as Rates
from jaxmxopt._core.slots import Like as Like
