#include "bind.hpp"

NB_MODULE(_native, module) {
    module.doc() = "The compiled part of wieldy; every function releases the interpreter lock.";
    wieldy::bind_cpu(module);
    wieldy::bind_transducer(module);
}
