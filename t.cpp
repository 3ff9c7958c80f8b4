#include "mole/io/peft/peft_layers.hpp"
