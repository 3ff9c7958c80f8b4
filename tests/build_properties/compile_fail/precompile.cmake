# SPDX-License-Identifier: MIT
# Precompiles PARTS, for the programs beside it that include it.
#   cmake -D PARTS=... -D PRECOMPILED=... -D COMPILER=... -D INCLUDES=dir|dir -P precompile.cmake
string(REPLACE "|" ";-I;" includes "${INCLUDES}")
file(WRITE "${PRECOMPILED}" "#include \"${PARTS}\"\n")
execute_process(COMMAND "${COMPILER}" -std=c++20 -I ${includes} -x c++-header "${PRECOMPILED}" -o "${PRECOMPILED}.gch"
                COMMAND_ERROR_IS_FATAL ANY)
