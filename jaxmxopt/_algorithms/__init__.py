"""The algorithms, one file each, and the table of them."""

from collections.abc import Mapping
from types import MappingProxyType

from jaxmxopt._algorithms.adabelief import AdaBelief as AdaBelief
from jaxmxopt._algorithms.adadelta import AdaDelta as AdaDelta
from jaxmxopt._algorithms.adafactor import Adafactor as Adafactor
from jaxmxopt._algorithms.adagrad import AdaGrad as AdaGrad
from jaxmxopt._algorithms.adam import Adam as Adam
from jaxmxopt._algorithms.adamax import Adamax as Adamax
from jaxmxopt._algorithms.adamw import AdamW as AdamW
from jaxmxopt._algorithms.ademamix import AdEMAMix as AdEMAMix
from jaxmxopt._algorithms.bertadam import BERTAdam as BERTAdam
from jaxmxopt._algorithms.ccsgd import ccSGD as ccSGD
from jaxmxopt._algorithms.dcasgd import DCASGD as DCASGD
from jaxmxopt._algorithms.ftml import FTML as FTML
from jaxmxopt._algorithms.ftrl import Ftrl as Ftrl
from jaxmxopt._algorithms.groupadagrad import GroupAdaGrad as GroupAdaGrad
from jaxmxopt._algorithms.lamb import LAMB as LAMB
from jaxmxopt._algorithms.lans import LANS as LANS
from jaxmxopt._algorithms.lars import LARS as LARS
from jaxmxopt._algorithms.lbsgd import LBSGD as LBSGD
from jaxmxopt._algorithms.lion import Lion as Lion
from jaxmxopt._algorithms.muon import Muon as Muon
from jaxmxopt._algorithms.nadam import Nadam as Nadam
from jaxmxopt._algorithms.nag import NAG as NAG
from jaxmxopt._algorithms.radam import RAdam as RAdam
from jaxmxopt._algorithms.rmsprop import RMSProp as RMSProp
from jaxmxopt._algorithms.schedulefreeadamw import ScheduleFreeAdamW as ScheduleFreeAdamW
from jaxmxopt._algorithms.schedulefreesgd import ScheduleFreeSGD as ScheduleFreeSGD
from jaxmxopt._algorithms.sgd import SGD as SGD
from jaxmxopt._algorithms.sgld import SGLD as SGLD
from jaxmxopt._algorithms.signum import Signum as Signum
from jaxmxopt._algorithms.soap import SOAP as SOAP
from jaxmxopt._algorithms.test import Test as Test
from jaxmxopt._core.algorithm import OptimizerDef

ALGORITHMS: Mapping[str, type[OptimizerDef]] = MappingProxyType(
    {
        kind.__name__: kind
        for kind in (
            AdaBelief,
            AdaDelta,
            Adafactor,
            AdaGrad,
            Adam,
            Adamax,
            AdamW,
            AdEMAMix,
            BERTAdam,
            ccSGD,
            DCASGD,
            FTML,
            Ftrl,
            GroupAdaGrad,
            LAMB,
            LANS,
            LARS,
            LBSGD,
            Lion,
            Muon,
            Nadam,
            NAG,
            RAdam,
            RMSProp,
            ScheduleFreeAdamW,
            ScheduleFreeSGD,
            SGD,
            SGLD,
            Signum,
            SOAP,
            Test,
        )
    }
)
