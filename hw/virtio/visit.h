/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Values for a visitor that writes, which cannot fail.
 */
#ifndef VIOMMU_VISIT_H
#define VIOMMU_VISIT_H

#include "qapi/visitor.h"
#include "qom/object.h"

static inline void visit_u64(Visitor *v, const char *name, uint64_t value)
{
    visit_type_uint64(v, name, &value, NULL);
}

static inline void visit_flag(Visitor *v, const char *name, bool value)
{
    visit_type_bool(v, name, &value, NULL);
}

static inline void visit_text(Visitor *v, const char *name, const char *text)
{
    char *value = (char *)text;

    visit_type_str(v, name, &value, NULL);
}

static inline void visit_path(Visitor *v, const char *name, Object *obj)
{
    g_autofree char *path = obj ? object_get_canonical_path(obj) : NULL;

    visit_text(v, name, path ?: "");
}

static inline bool begin_struct(Visitor *v, const char *name)
{
    return visit_start_struct(v, name, NULL, 0, NULL);
}

static inline bool begin_list(Visitor *v, const char *name)
{
    return visit_start_list(v, name, NULL, 0, NULL);
}

static inline void end_struct(Visitor *v)
{
    visit_end_struct(v, NULL);
}

static inline void end_list(Visitor *v)
{
    visit_end_list(v, NULL);
}

/* Where an answer ends. */
static inline void visit_next(Visitor *v, bool more, uint64_t next)
{
    visit_flag(v, "more", more);
    if (more) {
        visit_u64(v, "next", next);
    }
}

#endif
