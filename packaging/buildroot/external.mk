include $(sort $(wildcard $(BR2_EXTERNAL_DIFFUSED_PATH)/package/*/*.mk))
