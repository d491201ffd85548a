# Cross build for Arm with Debian's g++-aarch64-linux-gnu; programs run under qemu-user. Libraries come
# from Debian's arm64 packages, beside those of the build machine (dpkg --add-architecture arm64):
#   libfmt-dev libssl-dev libspdlog-dev libpcre2-dev libutf8proc-dev libtomlplusplus-dev libgtest-dev libgmock-dev
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64-static)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
set(ENV{PKG_CONFIG_LIBDIR} /usr/lib/aarch64-linux-gnu/pkgconfig)
