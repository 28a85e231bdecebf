// Catch2 under both of its major versions.
#pragma once

#ifdef ADAGATE_CATCH_V3
#include <catch2/catch_all.hpp>
using Catch::Approx;
#else
#include <catch2/catch.hpp>
#endif
