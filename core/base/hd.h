// Functions compiled for host and device alike carry ADAGATE_HD.
#pragma once

#ifdef __CUDACC__
#define ADAGATE_HD __host__ __device__
#else
#define ADAGATE_HD
#endif
