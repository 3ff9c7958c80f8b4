# SPDX-License-Identifier: MIT
"""A recipe of the tree that it stands in: conan create cmake/packaging/conan --build=missing"""
import os
import re

from conan import ConanFile
from conan.tools.build import check_min_cppstd
from conan.tools.cmake import CMake, CMakeToolchain, cmake_layout
from conan.tools.files import copy, load, rmdir


class MoleConan(ConanFile):
    name = "mole"
    description = "Mixtures of LoRA experts for the CPU: routed low-rank layers, forward and backward, header-only"
    license = "MIT"
    topics = ("lora", "mixture-of-experts", "machine-learning", "simd", "header-only")
    package_type = "header-library"
    settings = "os", "compiler", "build_type", "arch"
    options = {"with_eigen": [True, False], "with_io": [True, False]}
    default_options = {"with_eigen": False, "with_io": False}
    no_copy_source = True

    @property
    def _tree(self):
        return os.path.normpath(os.path.join(self.recipe_folder, "..", "..", ".."))

    def set_version(self):
        text = load(self, os.path.join(self._tree, "include", "mole", "core", "version.hpp"))
        self.version = ".".join(re.findall(r"#define MOLE_VERSION_\w+ (\d+)", text))

    def export_sources(self):
        for part in ("CMakeLists.txt", "LICENSE", "README.md", "include/*", "cmake/*"):
            copy(self, part, self._tree, self.export_sources_folder)

    def layout(self):
        cmake_layout(self)

    def requirements(self):
        self.requires("xsimd/[>=8.1.0 <15]", transitive_headers=True)
        if self.options.with_eigen:
            self.requires("eigen/[>=3.4.0 <4]", transitive_headers=True)
        if self.options.with_io:
            self.requires("nlohmann_json/[>=3 <4]", transitive_headers=True)

    def validate(self):
        check_min_cppstd(self, 20)

    def package_id(self):
        self.info.clear()

    def generate(self):
        toolchain = CMakeToolchain(self)
        for part in ("TESTS", "BENCHMARKS", "EXAMPLES", "C"):
            toolchain.cache_variables[f"MOLE_BUILD_{part}"] = False
        # Where xsimd is: the package's own configuration, or the cache of this recipe's dependency.
        include = self.dependencies["xsimd"].cpp_info.includedirs[0]
        toolchain.cache_variables["MOLE_XSIMD_INCLUDE_DIR"] = include.replace("\\", "/")
        toolchain.generate()

    def build(self):
        CMake(self).configure()

    def package(self):
        CMake(self).install()
        rmdir(self, os.path.join(self.package_folder, "share"))  # Conan writes the packages' configurations itself
        copy(self, "LICENSE", self.source_folder, os.path.join(self.package_folder, "licenses"))

    def package_info(self):
        self.cpp_info.bindirs = self.cpp_info.libdirs = []
        self.cpp_info.set_property("cmake_file_name", "mole")
        core = self.cpp_info.components["mole"]
        core.set_property("cmake_target_name", "mole::mole")
        core.set_property("pkg_config_name", "mole")
        core.requires = ["xsimd::xsimd"]
        if self.options.with_io:
            core.requires.append("nlohmann_json::nlohmann_json")
        if self.options.with_eigen:
            eigen = self.cpp_info.components["eigen"]
            eigen.set_property("cmake_target_name", "mole::eigen")
            eigen.requires = ["mole", "eigen::eigen"]
