#pragma once

const char* greet();
