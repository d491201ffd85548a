// Compiles nothing but the headers that others share; see Dependencies.cmake.
